"""What is written down of a run as it goes: rows, validation, pictures, advice, the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqgan.loggers import Loggers
from vqgan.reports.page import LiveReport
from vqgan.runs.criterion import Criterion
from vqgan.runtime.process import ALONE, Process
from vqgan.runtime.signals import StopSignals
from vqgan.training.algorithm import Advises, Algorithm, Measured, Measures
from vqgan.training.outcomes import Outcomes
from vqgan.training.progress import Clock, Progress
from vqgan.training.settings import LoopSettings


@dataclass(kw_only=True, eq=False)
class Journal:
    """Measures, logs and shows what is due; its state is how far the run is logged.

    Args:
        settings: how often.
        objective: by which a checkpoint is the best.
        outcomes: what came of the steps.
        validation: what is measured and shown at each evaluation.
        loggers: what takes the numbers.
        advisor: what reads them for signs of trouble.
        report: the page that shows the run as it goes.
        process: all of them measure; the first one writes.
    """

    settings: LoopSettings
    objective: Criterion
    outcomes: Outcomes
    validation: Measures
    loggers: Loggers
    advisor: Advises
    report: LiveReport
    process: Process = ALONE

    shown: int = field(init=False, default=-1)  # steps whose row is logged
    last_validation: dict[str, float] = field(init=False, default_factory=dict)

    def is_due(self, done: int, every: int) -> bool:
        """Whether something that comes every so many steps comes after `done` of them; after the last one all does."""
        return done % every == 0 or done == self.settings.steps

    def is_look_due(self, done: int) -> bool:
        """Whether the outcomes of the steps so far are needed, which makes the host wait for the device."""
        cadences = (self.settings.log_every, self.settings.evaluate_every, self.settings.checkpoint_every)
        return self.outcomes.are_many() or any(self.is_due(done, every) for every in cadences)

    def write(self, done: int, step: Algorithm, stop: StopSignals, progress: Progress, clock: Clock) -> Entry:
        """Write down what is due after `done` steps.

        Raises:
            StopRequested: a signal came during an evaluation, which changes nothing and comes again.
            DivergedError: a number is not finite.
            StorageError: something cannot be written.
        """
        is_row_due = done > 0 and self.is_due(done, self.settings.log_every)
        row = self._train_row(done, step) | clock.read() if is_row_due else {}
        evaluation, files = None, dict[str, Path]()
        if self.is_due(done, self.settings.evaluate_every):
            with stop.at_once():
                evaluation = self.evaluate(step)
                with step.autocast():
                    files = self.validation.show(step.measured, done, evaluation)
            row |= evaluation.metrics
        if row:
            self.outcomes.refuse_nonfinite(row, done)
        if row and self.process.is_first:
            progress.show(done, row)
            self.loggers.log(done, row, files)
            for advice in self.advisor.look(done, row):
                progress.advise(advice)
                self.loggers.advise(advice)
        if evaluation is not None:
            self.validation.record(done, evaluation)
        self.shown = done
        score = None if evaluation is None else self.objective.score(done, evaluation.metrics)
        return Entry(row, evaluation, score)

    def evaluate(self, step: Algorithm) -> Measured:
        """Measure on the validation clips, the networks in the run's precision."""
        with step.autocast():
            evaluation: Measured = self.validation.measure(step.measured)
        self.last_validation = dict(evaluation.metrics)
        return evaluation

    def begin(self) -> None:
        """Of a run without a checkpoint: whatever rows there are will come again."""
        self.loggers.load_state_dict({})
        self.validation.load_state_dict({})
        self.outcomes.begin()

    def state_dict(self) -> dict[str, Any]:
        """How far the run is logged."""
        return {"shown": self.shown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to it."""
        self.shown = state["shown"]

    def _train_row(self, done: int, step: Algorithm) -> dict[str, float]:
        skipped = {"train/skipped_steps": float(self.outcomes.skipped.total)}
        return self.outcomes.numbers() | skipped | step.row(done)


@dataclass(frozen=True)
class Entry:
    """What was written down after a step."""

    row: dict[str, float]  # empty where nothing was due
    evaluation: Measured | None
    score: float | None  # by which checkpoints are compared; None without an evaluation
