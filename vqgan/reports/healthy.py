"""What a healthy run of a recipe looks like: its curves, kept with the package, to be drawn behind those of others.

`docs/healthy.py` makes the files from runs. Each says by which command, at which commit, on what data and machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from vqgan.config.keys import NOT_IN_A_NAME, is_among
from vqgan.reports.differences import Values, typed_values

KEPT = Path(__file__).with_name("assets") / "healthy"
DEMO, DEFAULT = "demo", "default"  # what is trained where no recipe is typed: on synthetic videos, on others
DEFAULTS = {"SyntheticVideos": DEMO, "Videos": DEFAULT, "Shards": DEFAULT}  # by the kind of data
PLACES = ("data.root", "data.val_root")
CHOICES = ("experiment", "data")  # in which the recipe itself is typed, and where its videos are


class Points(TypedDict):
    """A curve of few points."""

    steps: list[float]
    values: list[float]


class Kept(TypedDict):
    """What a file holds."""

    recipe: str
    command: str
    commit: str
    machine: str
    data: str
    curves: dict[str, Points]


class Healthy(TypedDict):
    """What the page draws, and says of it."""

    recipe: str
    said: str
    curves: dict[str, Points]


def healthy_for(runs: Sequence[tuple[Sequence[str], Values]]) -> Healthy | None:
    """The healthy run to draw behind some; None unless all are by the same recipe, and one is kept of that.

    Args:
        runs: of each what was typed, and its config's values.
    """
    recipes = {recipe_of(typed, values) for typed, values in runs}
    file = {file.stem: file for file in KEPT.glob("*.json")}.get((recipes.pop() if len(recipes) == 1 else None) or "")
    if file is None:
        return None
    kept: Kept = json.loads(file.read_text("utf-8"))
    other = beside(runs[0][0]) if len(runs) == 1 else []  # of several it is in a table
    said = (
        f"Grey: a healthy run, {kept['command']}, on {kept['data']} ({kept['machine']}; commit {kept['commit'][:12]}). "
        "On other videos the levels differ more than the shapes."
    )
    if other:
        said += f" It was trained without {', '.join(other)}."
    return {"recipe": kept["recipe"], "said": said, "curves": kept["curves"]}


def recipe_of(typed: Sequence[str], values: Values) -> str | None:
    """The recipe of a tokenizer's run by what was typed and its config's values; None for runs of other kinds."""
    kind = values.get("data._target_", "").rpartition(".")[2]
    default = DEFAULTS.get(kind) if "backbone._target_" in values else None
    return typed_values([one.lstrip("+") for one in typed]).get("experiment", default)


def beside(typed: Iterable[str]) -> list[str]:
    """Of what was typed, what makes the run another one than the recipe's."""
    keys = [(one, one.lstrip("+~").partition("=")[0]) for one in typed]
    return [one for one, key in keys if key not in CHOICES and not is_among(key, NOT_IN_A_NAME)]


def command_of(typed: Sequence[str]) -> str:
    """The command of a run as others would type it: folders are called DIR, what is of its machine is left out."""
    keys = [(one, one.lstrip("+~").partition("=")[0]) for one in typed]
    words = [f"{key}=DIR" if key in PLACES else one for one, key in keys
             if key in PLACES or not is_among(key, NOT_IN_A_NAME)]  # fmt: skip
    return " ".join(["python train.py", *words])
