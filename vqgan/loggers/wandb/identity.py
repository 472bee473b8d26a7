"""How a run is called where many runs are shown: its name, its group and its tags, from what was typed for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from vqgan.config.keys import NOT_IN_A_NAME, is_among
from vqgan.errors import ConfigError
from vqgan.runs.saved import typed_for
from vqgan.runs.sweep import SWEEP, swept_overrides

TAGGED = ("experiment", "sweep", "model", "backbone", "data")  # groups whose choice is a tag
LONGEST_NAME, LONGEST_TAG = 100, 64  # characters; W&B takes 128, and 64


def name_of(folder: Path) -> str:
    """The overrides that a run was made with, as `model=emavq,optimizer.lr=0.001`; `name/time` if there were none.

    Of a sweep's job, those that its jobs have not in common.
    A long one has the last word of each key alone, and loses its beginning: what a sweep varies comes last.
    """
    typed = typed_for(folder)
    with contextlib.suppress(ConfigError):  # of a run on its own, or beside a damaged record
        typed = swept_overrides(folder.parent, typed)
    pairs = [override.lstrip("+").partition("=")[::2] for override in typed]
    pairs = [(key, value) for key, value in pairs if _is_telling(key, value)]
    if sum(len(key) + len(value) + 2 for key, value in pairs) > LONGEST_NAME:
        pairs = [(key.rpartition(".")[2], value) for key, value in pairs]
    parts = [value if key == "name" else f"{key}={value}" if value else key for key, value in pairs]
    name = ",".join(parts) or "/".join(folder.absolute().parts[-2:])
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def sweep_of(folder: Path) -> str | None:
    """The folder of the sweep that a run is a job of, as `name/time`; None for a run on its own."""
    above = folder.absolute().parent
    return "/".join(above.parts[-2:]) if (above / SWEEP).is_file() else None


def choices() -> dict[str, str]:
    """Which choice of each of the `TAGGED` groups was composed, as Hydra knows; nothing where it did not compose."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {group: str(chosen[group]) for group in TAGGED if chosen.get(group) is not None}


def tags_of(choices: dict[str, str]) -> list[str]:
    """The choices as tags: `model=emavq`."""
    return [f"{group}={choice}"[:LONGEST_TAG] for group, choice in choices.items()]


def _is_telling(key: str, value: str) -> bool:
    return not is_among(key, NOT_IN_A_NAME) and os.sep not in value
