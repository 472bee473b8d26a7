"""One run in a comparison, read from its folder: finished, failed, damaged, or still at work."""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqgan.config.keys import OWN_WHEN_TYPED
from vqgan.files.reading import is_inside, number, read_object
from vqgan.reports.differences import Values, config_values, overrides, shown
from vqgan.reports.run import Figure, figures, steps_of
from vqgan.runs.criterion import criterion_in
from vqgan.runs.metrics import FACTS, Curve, Metrics, read_metrics
from vqgan.runs.status import STATUS, Status, state_of, status_of
from vqgan.text import PROGRAM

# What can have become of a run, the best first; `damaged`: its folder does not tell.
STATES = ("finished", "running", "pruned", "stopped", "interrupted", "diverged", "failed", "damaged")
WITHOUT_RESULT = ("diverged", "failed", "damaged")  # whatever they measured on the way, it is no result
LONGEST_MESSAGE = 2000  # characters


@dataclass(frozen=True)
class MeasuredOn:
    """What the figures of a run are of: those on other data, or of other frames, are answers to another question."""

    kind: str
    name: str  # of the folder
    resolution: str
    data: str  # what the files are

    def __str__(self) -> str:
        return f"{self.kind} in {self.name}, {self.resolution} pixels"


@dataclass(frozen=True)
class Trial:
    """A run, as far as a comparison looks at it."""

    folder: Path
    name: str
    status: Status  # one of STATES; the message says why, where there is a reason
    values: Values  # of its config; empty where there is none, as of a run that failed before it began
    typed: Sequence[str]  # the overrides, in their order
    step: float | None  # of the newest row
    steps: float | None  # that its config asks for
    hours: float | None  # of training, without the time that it was stopped for
    figures: dict[str, Figure]  # of all metrics, by name
    frames_per_second: float | None  # median over the rows
    measured_on: MeasuredOn
    tokens: float | None  # of a frame
    bits: float | None  # of a pixel
    curves: dict[str, Curve]

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.status.state

    @property
    def reason(self) -> str:
        """Why it came to nothing, with paths as seen from its folder, so that the same reasons read the same."""
        message, own = self.status.message or "no reason is known", self.values.get("run_dir", "")
        return message.replace(f"{own}/", "") if own else message

    def best(self, metric: str) -> float | None:
        """The best value of a metric; None for a run that has none, or that came to nothing."""
        return None if self.state in WITHOUT_RESULT or metric not in self.figures else self.figures[metric]["best"]

    def last(self, *metrics: str) -> float | None:
        """The last value of the first of these metrics that the run has."""
        return next((self.figures[name]["last"] for name in metrics if name in self.figures), None)

    def command(self) -> str:
        """The command line that trains it again, in a folder of its own, for a POSIX shell."""
        last = {override.partition("=")[0]: override for override in self.typed if not override.startswith("-")}
        own = [override for key, override in last.items() if key.lstrip("+~") not in OWN_WHEN_TYPED]
        return " ".join([PROGRAM, *map(quoted, own)])


def is_trial(folder: Path) -> bool:
    """Whether a folder is that of a run, be it one that failed before it logged anything."""
    config = all(is_inside(folder, folder / name) for name in ("config.yaml", "overrides.yaml"))
    return config or any(is_inside(folder, folder / name) for name in ("metrics.jsonl", STATUS))


def read_trial(folder: Path, name: str, points: int) -> Trial:
    """A run from its folder, whatever is left of it.

    Args:
        folder: of the run.
        name: what the comparison calls it.
        points: of each curve, at most.
    """
    metrics, values, typed = read_metrics(folder), config_values(folder), overrides(folder)
    hours = [hour for hour in metrics.hours() if hour is not None]
    speeds = metrics.columns.get("speed/frames_per_second")
    rates = [value for _, value in speeds.numbers()] if speeds else []
    facts = read_object(folder, FACTS)
    return Trial(
        folder=folder,
        name=name,
        status=_status(folder, metrics, values),
        values=values,
        typed=typed,
        step=metrics.last_step(),
        steps=steps_of(values),
        hours=hours[-1] if hours else None,
        figures={figure["name"]: figure for figure in figures(metrics, criterion_in(values))},
        frames_per_second=statistics.median(rates) if rates else None,
        measured_on=_measured_on(values, facts),
        tokens=number(facts.get("tokens_per_frame")),
        bits=number(facts.get("bits_per_pixel")),
        curves=metrics.curves(points),
    )


def _measured_on(values: Values, facts: Mapping[str, Any]) -> MeasuredOn:
    places = [shown(values.get(f"data.{key}", ""), values) for key in ("root", "val_root", "val_fraction")]
    kind = shown(values.get("data._target_", ""), values).rpartition(".")[2]
    # Where the files are known, it is all the same where they lie.
    data = str(facts.get("data_fingerprint", places))
    return MeasuredOn(kind, Path(places[0]).name, shown(values.get("data.resolution", ""), values), data)


def quoted(text: str) -> str:
    """Text as one word of a POSIX shell; what could control a terminal stands as an escape sequence of the shell's."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(c if c.isprintable() and c not in "\\'" else _as_bytes(c) for c in text)
    return f"$'{escaped}'"


def _as_bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogatepass"))


def _status(folder: Path, metrics: Metrics, values: Values) -> Status:
    status = status_of(folder)
    if _has_content(folder, "config.yaml") and not values:
        return Status("damaged", "config.yaml cannot be read")
    if _has_content(folder, "metrics.jsonl") and not metrics.steps:
        return Status("damaged", "metrics.jsonl has no row that can be read")
    if status is not None and status.state in STATES:
        message = None if status.message is None else " ".join(str(status.message).split())[:LONGEST_MESSAGE]
        return Status(status.state, message, status.exit_code if isinstance(status.exit_code, int) else None)
    if status is not None or _has_content(folder, STATUS):
        return Status("damaged", f"{STATUS} cannot be read")
    if not values:
        return Status("damaged", "there is no config.yaml")
    # A folder from before there was a status.json.
    return Status(state_of(folder, metrics.last_step(), steps_of(values)))


def _has_content(folder: Path, name: str) -> bool:
    """Whether there is more than an empty file; a link that leads nowhere is, too."""
    try:
        return (folder / name).stat().st_size > 0
    except OSError:
        return os.path.lexists(folder / name)
