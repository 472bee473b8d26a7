"""The rows of a run, as columns and curves."""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from vqgan.files.reading import number, read_rows

MUCH_WAITING = 0.25  # of the time; it is below 0.06 in the demo
ENOUGH_STEPS = 50  # before them the first batch, compilers and caches weigh too much to say what is slow
HOURS = "speed/hours"  # the scalar that says how long a run has trained
FACTS = "facts.json"  # beside the metrics: what the parts and the data of the run come to
MOST_CURVES, LONGEST_NAME = 200, 100
SHORTEST_PAUSE = 600.0  # seconds between rows; a run that logs slowly may need more than that
PAUSE = 30  # times the usual distance of rows


class Curve(TypedDict):
    """Points of one metric, as the page takes them."""

    steps: list[float]
    hours: list[float | None]
    values: list[float | None]  # None where the run had no finite number
    rows: int  # how many there were before thinning


@dataclass
class Column:
    """The values of one metric; not a number where the run had no finite one."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def numbers(self) -> list[tuple[int, float]]:
        """Rows and values without gaps."""
        return [(row, value) for row, value in zip(self.rows, self.values) if not math.isnan(value)]


@dataclass
class Metrics:
    """What a run has logged, row by row."""

    steps: list[float] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)  # seconds since 1970
    columns: dict[str, Column] = field(default_factory=dict)

    def last_step(self) -> float | None:
        """The step of the newest row."""
        return self.steps[-1] if self.steps else None

    def hours(self) -> list[float | None]:
        """Hours of training up to each row: where a run was stopped for a while, its clock stands still.

        As they were counted, or, in a run of before they were, by the time of day.
        """
        counted = self.columns.get(HOURS, Column()).numbers()
        if len(counted) == len(self.steps):
            return [_short(value) for _, value in counted]
        known = [time for time in self.times if time is not None]
        distances = [after - before for before, after in pairwise(known)]
        usual = statistics.median(distances) if distances else 0.0
        hours: list[float | None] = []
        elapsed, before = 0.0, None
        for time in self.times:
            if time is not None and before is not None:
                distance = time - before
                elapsed += usual if distance > max(PAUSE * usual, SHORTEST_PAUSE) else max(distance, 0.0)
            hours.append(None if time is None else _short(elapsed / 3600))
            before = before if time is None else time
        return hours

    def curves(self, most: int) -> dict[str, Curve]:
        """All metrics, by name, with at most about so many points each."""
        hours = self.hours()
        shown = sorted((name, column) for name, column in self.columns.items() if name != HOURS)  # an axis, no curve
        return {name: self._curve(column, hours, most) for name, column in shown}

    def _curve(self, column: Column, hours: list[float | None], most: int) -> Curve:
        kept = thinned(column.values, most)
        return {
            "steps": [self.steps[column.rows[n]] for n in kept],
            "hours": [hours[column.rows[n]] for n in kept],
            "values": [None if math.isnan(value := column.values[n]) else _short(value) for n in kept],
            "rows": len(column.rows),
        }


def read_metrics(folder: Path) -> Metrics:
    """What the run in a folder has logged."""
    metrics = Metrics()
    columns = metrics.columns
    for row in read_rows(folder, "metrics.jsonl"):
        step = number(row.get("step"))
        if step is None:
            continue
        for name, value in row.items():
            if name not in columns and not _is_name(name, columns):  # once a name, not once a value
                continue
            if _is_number_or_none(value):
                column = columns.setdefault(name, Column())
                found = number(value)
                column.rows.append(len(metrics.steps))
                column.values.append(math.nan if found is None else found)
        metrics.steps.append(step)
        metrics.times.append(number(row.get("time")))
    return metrics


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Which points of a curve to show: all, or the lowest and the highest of each of `most` / 2 equal stretches.

    Peaks stay visible, which means of stretches would hide.
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = max(1, most // 2)
    kept = {0, count - 1}
    for stretch in range(stretches):
        first, after = stretch * count // stretches, (stretch + 1) * count // stretches
        finite = [(value, n) for n, value in enumerate(values[first:after], first) if not math.isnan(value)]
        kept |= {min(finite)[1], max(finite)[1]} if finite else {first}
    return sorted(kept)


def speed(folder: Path) -> str:
    """How fast the run in `folder` trains, and which side the other one waits for: medians of the rows' newer half."""
    return speed_of(read_metrics(folder))


def speed_of(metrics: Metrics) -> str:
    """The same, of metrics that were read already."""
    medians: dict[str, float] = {}
    for name in ("speed/frames_per_second", "speed/data_wait", "speed/reading"):
        values = [value for _, value in metrics.columns.get(name, Column()).numbers()]
        if values:  # the newer half: what is kept of clips was decoded in the older one
            medians[name] = statistics.median(values[len(values) // 2 :])
        elif name != "speed/reading":  # which runs of 0.1 have not measured
            return "nothing was trained"
    rate, wait = medians["speed/frames_per_second"], medians["speed/data_wait"]
    reading = medians.get("speed/reading", 0.0)
    if metrics.steps[-1] < ENOUGH_STEPS:
        return (
            f"{rate:.3g} frames/s, {wait:.1%} of the time waiting for data (of few steps, in which things still start)"
        )
    slower = (
        "the networks are the bottleneck" if wait < MUCH_WAITING else "the data are the bottleneck: see docs/speed.md"
    )
    if reading >= MUCH_WAITING and wait < MUCH_WAITING:
        slower += f", and reading takes {reading:.0%} of the cores, which they lack on a CPU: see docs/speed.md"
    return f"{rate:.3g} frames/s, {wait:.1%} of the time waiting for data ({slower})"


def _is_name(name: str, columns: dict[str, Column]) -> bool:
    return "/" in name and len(name) <= LONGEST_NAME and len(columns) < MOST_CURVES


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _short(value: float) -> float:
    """Six digits are more than a screen shows."""
    return float(f"{value:.6g}")
