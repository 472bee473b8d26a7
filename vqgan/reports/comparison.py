"""`compare.html`: a study as one page that works offline, made like `report.html`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vqgan.reports.page import PARTS, fill
from vqgan.reports.study import Study, letters, points_of
from vqgan.reports.trial import WITHOUT_RESULT, Trial
from vqgan.reports.varied import Key, short_names, short_value

MOST_CURVES = 200  # runs whose curves are drawn, the best ones; more take long and could not be told apart
MOST_KEYS, LONGEST_VALUE = 50, 200  # of keys that are shown, and characters
SHARED = ("elements.js", "charts.js", "curves.js")
OWN = ("trials.js", "keys.js", "comparison.js")
SCRIPTS = (*(PARTS / name for name in SHARED), *(PARTS / name for name in OWN))


def page(study: Study, beside: Path) -> str:
    """The page of a study.

    Args:
        study: what it shows.
        beside: the folder it will lie in, from which its links lead to the runs' reports.
    """
    keys = study.keys[:MOST_KEYS]
    names = short_names([key.name for key in keys])
    labels = [_label(trial, names, [key.values[number] for key in keys]) for number, trial in enumerate(study.trials)]
    data = {
        "runs": [
            _run(trial, study, number, beside) | {"label": labels[number]} for number, trial in enumerate(study.trials)
        ],
        "keys": [_key(key, name) for key, name in zip(keys, names)],
        "more_keys": len(study.keys) - len(keys),
        "metric": study.metric,
        "higher": study.higher_is_better,
        "best": None if study.best is None else 0,
        "command": None if study.best is None else study.best.command(),
        "caution": study.caution,
        "letters": [letters(n) for n in range(len(study.measured_on))],
        "measured_on": [str(one) for one in study.measured_on],
        "bests": [{"name": one.name, "best": one.best(study.metric), "command": one.command()} for one in study.bests],
        "counts": study.counts,
        "importances": [asdict(one) for one in study.importances],
        "why": study.why_no_importance,
        "finished": study.finished,
        "points": points_of(len(study.trials)),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "version": version("vqgan"),
    }
    return fill(title=study.counts, data=data, scripts_of_page=SCRIPTS)


def _run(trial: Trial, study: Study, number: int, beside: Path) -> dict[str, Any]:
    figure = trial.figures.get(study.metric)
    return {
        "name": trial.name,
        "state": trial.state,
        "reason": trial.reason if trial.state in WITHOUT_RESULT else trial.status.message,
        "step": trial.step,
        "steps": trial.steps,
        "hours": trial.hours,
        "rate": trial.frames_per_second,
        "on": study.letter(trial),
        "tokens": trial.tokens,
        "bits": trial.bits,
        "counts": trial.best(study.metric) is not None,
        "best": None if figure is None else figure["best"],
        "best_step": None if figure is None else figure["best_step"],
        "last": {name: figure["last"] for name, figure in trial.figures.items() if name.startswith("validation/")},
        "usage": trial.last("validation/usage", "codebook/usage"),
        "perplexity": trial.last("validation/perplexity", "codebook/perplexity"),
        "report": _link(trial.folder, beside),
        "curves": trial.curves if number < MOST_CURVES else {},
    }


def _label(trial: Trial, names: Sequence[str], values: Sequence[str | None]) -> str:
    """The run's name and what was varied in it."""
    own = [f"{name}={short_value(value)}" for name, value in zip(names, values) if value is not None]
    return f"{trial.name}: {', '.join(own)}" if own else trial.name


def _key(key: Key, short: str) -> dict[str, Any]:
    values = [None if value is None else value[:LONGEST_VALUE] for value in key.values]
    return {"name": key.name, "short": short, "values": values, "numbers": key.numbers, "log": key.is_logarithmic}


def _link(folder: Path, beside: Path) -> str | None:
    """Where the run's own page lies, seen from this one; None if it has none."""
    report = folder / "report.html"
    return f"./{quote(os.path.relpath(report, beside))}" if report.is_file() else None
