"""A study as `compare.csv`, a row for each run, in full; and as JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from vqgan.reports.study import Study
from vqgan.reports.varied import Key

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet's formulas begin


def as_csv(study: Study) -> str:
    """Columns: the run, what became of it, each key that was varied, the metric, the last value of all others, and the
    command that trains it again. Empty where there is nothing.
    """
    metrics = sorted({name for trial in study.trials for name in trial.figures})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "state", "exit_code", "message", "step", "steps", "hours", "frames_per_second"]
        + ["measured on", "tokens_per_frame", "bits_per_pixel"]
        + [_cell(key.name) for key in study.keys]
        + [f"best {study.metric}", f"step of best {study.metric}"]
        + [_cell(f"last {name}") for name in metrics]
        + ["command"]
    )
    for number, trial in enumerate(study.trials):
        best = trial.figures.get(study.metric)
        writer.writerow(
            [_cell(trial.name), trial.state, trial.status.exit_code, _cell(trial.status.message)]
            + [_short(trial.step), _short(trial.steps), trial.hours, trial.frames_per_second]
            + [_cell(str(trial.measured_on)), trial.tokens, trial.bits]
            + [_cell(key.values[number]) for key in study.keys]
            + ([None, None] if best is None else [best["best"], _short(best["best_step"])])
            + [trial.last(name) for name in metrics]
            + [trial.command()]
        )
    return text.getvalue()


def as_json(study: Study) -> dict[str, Any]:
    """The same as plain data, the runs in the order of the comparison."""
    return {
        "metric": study.metric,
        "higher_is_better": study.higher_is_better,
        "best": None if study.best is None else study.best.name,
        "caution": study.caution,
        "importances": [asdict(one) for one in study.importances],
        "runs": [
            {
                "name": trial.name,
                "folder": str(trial.folder),
                "state": trial.state,
                "message": trial.status.message,
                "step": trial.step,
                "steps": trial.steps,
                "hours": trial.hours,
                "frames_per_second": trial.frames_per_second,
                "measured_on": asdict(trial.measured_on),
                "tokens_per_frame": trial.tokens,
                "bits_per_pixel": trial.bits,
                "varied": {key.name: key.values[number] for key in study.keys},
                "figures": trial.figures,
                "command": trial.command(),
            }
            for number, trial in enumerate(study.trials)
        ],
    }


def _short(step: float | None) -> float | None:
    return int(step) if step is not None and step.is_integer() else step


def _cell(value: str | None) -> str:
    """Text that a spreadsheet does not take for a formula, be it a stranger's run that it comes from."""
    text = (value or "").encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(FORMULA) and Key("", [text]).numbers is None else text
