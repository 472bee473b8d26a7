"""Runs as one study: in order, with what was varied, the best one, and what mattered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vqgan.errors import ConfigError
from vqgan.reports.importance import FEWEST, Importance, importances
from vqgan.reports.page import names_of
from vqgan.reports.trial import STATES, MeasuredOn, Trial, read_trial
from vqgan.reports.varied import Key, varied
from vqgan.runs.criterion import PSNR, criterion_in
from vqgan.text import counted

METRIC = PSNR.scalar
MOST_NAMES = 20  # in a message
POINTS = 8000  # of a metric's curves of all runs together
FEWEST_POINTS, MOST_POINTS = 30, 1000  # of one


@dataclass(frozen=True)
class Study:
    """What a comparison found.

    Args:
        trials: the best first, of each data by themselves; then those without a result.
        metric: by which they are compared.
        keys: that were varied, with values in the order of the trials.
        importances: of these keys, for the best values of the metric; of the finished runs alone, since of two runs the
            one that trained on is better whatever was varied.
        finished: how many runs that is.
    """

    trials: Sequence[Trial]
    metric: str
    keys: Sequence[Key]
    importances: Sequence[Importance]
    finished: int

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values of the metric are better ones."""
        return _is_higher_better(self.metric, self.trials)

    @property
    def best(self) -> Trial | None:
        """The best run; None if none has a result yet, or where they are measured on different data."""
        return self.bests[0] if len(self.bests) == 1 else None

    @cached_property
    def measured_on(self) -> Sequence[MeasuredOn]:
        """The different data that runs with a result are measured on; figures on one are not comparable with others."""
        return list(dict.fromkeys(one.measured_on for one in self.trials if one.best(self.metric) is not None))

    @cached_property
    def bests(self) -> Sequence[Trial]:
        """The best run of those on the same data, in the order of `measured_on`."""
        ranked = [one for one in self.trials if one.best(self.metric) is not None]
        return [next(one for one in ranked if one.measured_on == data) for data in self.measured_on]

    @property
    def caution(self) -> str | None:
        """What to know of runs that do not compare."""
        if len(self.measured_on) < 2:
            return None
        return (
            f"These runs are measured on {len(self.measured_on)} different data or resolutions; {self.metric} of one "
            "says nothing about another, and none is best of all."
        )

    def letter(self, trial: Trial) -> str:
        """By which the data are called that a run is measured on; nothing for a run without a result."""
        known = list(self.measured_on)
        return letters(known.index(trial.measured_on)) if trial.measured_on in known else ""

    @property
    def counts(self) -> str:
        """How many runs are in which state, in words."""
        found = Counter(trial.state for trial in self.trials)
        states = [f"{found[state]} {state}" for state in STATES if found[state]]
        return f"{counted(len(self.trials), 'run')}: {', '.join(states)}"

    @property
    def why_no_importance(self) -> str | None:
        """Why there are no importances, if so."""
        if self.importances:
            return None
        if self.caution is not None:
            return "the runs are measured on different data"
        if not self.keys:
            return "nothing was varied"
        if self.finished >= FEWEST:
            return "nothing was varied among the finished runs"
        return f"too few runs: {counted(self.finished, 'finished one')}, and chance rules below {FEWEST}"


def study(folders: Sequence[Path], metric: str | None = None) -> Study:
    """Read runs and compare them.

    Args:
        folders: of the runs.
        metric: to compare them by; by default the objective in their configs, else `validation/psnr`.

    Raises:
        ConfigError: nothing of them can be read, or no run has such a metric.
    """
    trials = [read_trial(folder, name, points_of(len(folders))) for folder, name in zip(folders, names_of(folders))]
    if all(trial.state == "damaged" for trial in trials):
        raise ConfigError(
            f"There is nothing to compare: {counted(len(trials), 'run folder')}, all damaged "
            f"({trials[0].folder}: {trials[0].status.message})."
        )
    if metric is not None:
        metric = metric if "/" in metric else f"validation/{metric}"
        _require(metric, trials)
    metric = metric or _objective(trials)
    ordered = _in_order(trials, metric)
    keys = varied(ordered)
    finished = [n for n, trial in enumerate(ordered) if trial.state == "finished" and trial.best(metric) is not None]
    results = [value for n in finished if (value := ordered[n].best(metric)) is not None]
    together = len({ordered[n].measured_on for n in finished}) < 2
    found = importances([key.of(finished) for key in keys], results) if together else []
    return Study(ordered, metric, keys, found, len(finished))


def letters(number: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    head, last = divmod(number, 26)
    return (letters(head - 1) if head else "") + chr(ord("A") + last)


def points_of(count: int) -> int:
    """How many points each of so many runs' curves has, at most."""
    return min(MOST_POINTS, max(FEWEST_POINTS, POINTS // count))


def _objective(trials: Sequence[Trial]) -> str:
    objectives = {criterion_in(trial.values).scalar for trial in trials if trial.values}
    common = objectives.pop() if len(objectives) == 1 else METRIC
    return common if any(common in trial.figures for trial in trials) else METRIC


def _is_higher_better(metric: str, trials: Sequence[Trial]) -> bool:
    return criterion_in(next((trial.values for trial in trials if trial.values), {})).is_higher_better(metric)


def _require(metric: str, trials: Sequence[Trial]) -> None:
    known = sorted({name for trial in trials for name in trial.figures})
    if metric not in known:
        measured = [name for name in known if name.startswith("validation/")] or known[:MOST_NAMES]
        there = f"There are: {', '.join(measured)}." if known else "They have logged no number so far."
        raise ConfigError(f"--metric {metric}: no run has such a metric. {there}")


def _in_order(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Those with a result, of the data with most of them first, the best before others; then by state and name."""
    sign = -1.0 if _is_higher_better(metric, trials) else 1.0
    counts = Counter(trial.measured_on for trial in trials if trial.best(metric) is not None)
    rank = {data: n for n, (data, _) in enumerate(counts.most_common())}

    def place(trial: Trial) -> tuple[bool, int, float, int, list[tuple[int, str]]]:
        best = trial.best(metric)
        parts = re.findall(r"\d{1,15}|\D+|\d+", trial.name)
        natural = [(int(part), "") if len(part) <= 15 and part.isdecimal() else (-1, part) for part in parts]
        group = 0 if best is None else rank[trial.measured_on]
        return best is None, group, 0.0 if best is None else sign * best, STATES.index(trial.state), natural

    return sorted(trials, key=place)
