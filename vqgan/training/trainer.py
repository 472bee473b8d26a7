"""The loop: step after step from the newest checkpoint on, with what is due in between, until the end or a signal."""

from __future__ import annotations

import contextlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vqgan.errors import StoppedError, StorageError
from vqgan.files.writing import replace_text
from vqgan.runs.checkpoint import Checkpoints, Stateful, size_of
from vqgan.runs.metrics import FACTS
from vqgan.runs.provenance import Provenance, commit, write_environment
from vqgan.runtime.collectives import broadcast, gather
from vqgan.runtime.device import (
    SMALLER_RUN,
    is_busy,
    is_compiling_failed,
    is_out_of_memory,
    memory_to_begin,
)
from vqgan.runtime.process import ALONE, Process
from vqgan.runtime.signals import StopRequested, StopSignals
from vqgan.text import IS_COMMAND, PROGRAM
from vqgan.training.algorithm import Algorithm, Batches
from vqgan.training.journal import Journal
from vqgan.training.progress import Clock, Progress
from vqgan.training.settings import LoopSettings


@dataclass(kw_only=True, eq=False)
class Trainer(ABC):
    """Trains to the last step, saving on the way.

    Args:
        settings: steps, cadences.
        step: the algorithm.
        loader: the training batches.
        journal: what is written down.
        provenance: software, hardware, data and config, kept with each checkpoint.
        facts: what runs are told apart by, and is not in the config.
        folder: of the run.
        process: which of several this is.
    """

    settings: LoopSettings
    step: Algorithm
    loader: Batches
    journal: Journal
    provenance: Provenance
    facts: Mapping[str, Any]
    folder: Path
    process: Process = ALONE

    done: int = field(init=False, default=0)  # finished steps
    saved: int = field(init=False, default=-1)  # steps in the newest checkpoint

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.settings.keep, self.journal.objective)

    @property
    def device(self) -> torch.device:
        """Of the networks."""
        return self.step.device

    def resume(self) -> None:
        """Go back to the newest checkpoint, if there is one.

        Raises:
            ConfigError: it is of another model, or of a run on other data.
            CheckpointError: there are checkpoints, but none is intact.
            StorageError: there is no room for more of them.
        """
        with warnings.catch_warnings():
            if not self.process.is_first:
                warnings.simplefilter("ignore")  # the first one says it
            with memory_to_begin(SMALLER_RUN):
                self.done = self.checkpoints.load_latest(**self.state())
        if len(set(gather(self.done))) > 1:
            raise StorageError(
                f"The processes see different checkpoints in {self.checkpoints.folder}: share that folder."
            )
        if self.journal.shown < 0:
            self.journal.begin()
        else:
            self.saved = self.done
        if not self.process.is_first:
            return
        self.checkpoints.replace_damaged_best()
        self.checkpoints.warn_of_another_objective()
        if self.done >= self.settings.steps:
            print(f"Nothing left to train: the run has {self.done} steps, and trainer.steps={self.settings.steps}.")
        elif self.journal.shown < 0 and (self.folder / "metrics.jsonl").exists():
            print("This run was stopped before its first checkpoint: it begins again at step 0.")
        elif self.done:
            print(f"It goes on after step {self.done} of {self.settings.steps}.", flush=True)
        sizes = [size_of(player.network.state_dict()) for player in self.step.players]
        averages = [player.weight_average for player in self.step.players]
        sizes_of_averages = [0 if average is None else size_of(average.network.state_dict()) for average in averages]
        self.checkpoints.require_room(3 * sum(sizes) + sum(sizes_of_averages))  # with what the optimizers will keep

    def run(self, stop: StopSignals) -> None:
        """Train from where `resume` has brought it to the last step.

        Args:
            stop: open already; says when to stop.

        Raises:
            StoppedError: a signal came; the run is saved up to its last finished step.
            DivergedError: too many losses or gradients are not finite; the newest checkpoint is from before.
            StorageError: a file cannot be written, or memory ran out; the newest checkpoint is good.
        """
        if self.process.is_first:
            write_environment(self.folder / "environment.json", self.provenance.environment)
            replace_text(self.folder / FACTS, json.dumps({**self.facts, "commit": commit()}, indent=1) + "\n")
        with Progress(self.done, self.settings.steps, self.process.is_first) as progress, self._saving():
            try:
                self._train(stop, progress)
                if not self.journal.last_validation:  # of a run that was done before
                    self.journal.evaluate(self.step)
            except StopRequested as signal:
                self._look()
                self._save(None)
                self.checkpoints.finish()
                broadcast(None)  # the others wait for it, since torchrun ends all when one has ended
                raise self.stopped(f"Stopped by {signal} after step {self.done}; everything is saved.") from None
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise self.out_of_memory() from error

    @abstractmethod
    def out_of_memory(self) -> StorageError:
        """What to say where memory has run out in the middle of a run."""

    def state(self) -> dict[str, Stateful]:
        """All that a checkpoint holds; whatever else there is follows from the config and the step."""
        journal = self.journal
        return {
            "provenance": self.provenance,
            **self.step.state(),
            "progress": journal,
            "outcomes": journal.outcomes,
            "loader": self.loader,
            "loggers": journal.loggers,
            "validation": journal.validation,
            "advice": journal.advisor,
        }

    def _train(self, stop: StopSignals, progress: Progress) -> None:
        clock = Clock(lambda: self.loader.reading_seconds)
        self._after_step(stop, progress, clock)  # what a stop in the middle of it has left to do
        first = self.done * self.settings.accumulate
        with contextlib.closing(self.loader.batches(first)) as batches:
            while self.done < self.settings.steps:
                with stop.at_once():
                    clips = clock.wait(
                        lambda: [next(batches) for _ in range(self.settings.accumulate)], lambda: is_busy(self.device)
                    )
                self._step(clips, stop)
                clock.count(self.process.count * self.step.frames(self.done, clips))
                self.done += 1
                progress.advance()
                self._after_step(stop, progress, clock)

    def _step(self, clips: list[Any], stop: StopSignals) -> None:
        try:
            self.journal.outcomes.add(self.step(self.done, clips))
        except RuntimeError as error:
            if not (stop.requested and is_compiling_failed(error)):  # Ctrl-C ends the compiler too
                raise
            if self.process.count > 1:  # the others may wait within this step: no agreement comes any more
                raise self.stopped(
                    f"Stopped by {stop.name} while networks were compiled; the newest checkpoint is good."
                ) from None
            # Of all that is saved only buffers can have moved: parameters do when both players have their gradients,
            # and nothing is compiled any more.
            self.step.undo()
            stop.check()

    def _after_step(self, stop: StopSignals, progress: Progress, clock: Clock) -> None:
        """Write down and save what is due after the steps done so far.

        Raises:
            StopRequested: a signal came, and there are steps left.
        """
        journal = self.journal
        self.checkpoints.finish(wait=False)
        if journal.is_look_due(self.done):
            self._look()
        if journal.shown < self.done:
            entry = journal.write(self.done, self.step, stop, progress, clock)
            if self.done and (self._is_best(entry.score) or journal.is_due(self.done, self.settings.checkpoint_every)):
                self._save(entry.score)
            if entry.evaluation is not None and self.process.is_first:
                journal.report.update()
            if entry.row:
                clock.restart()
        if self.done < self.settings.steps:
            stop.check()

    def _look(self) -> None:
        """See what came of the steps so far, in all processes."""
        self.journal.outcomes.settle()
        self.loader.exchange()

    def _is_best(self, score: float | None) -> bool:
        """Whether it is the highest so far, as the first process sees it."""
        if score is None:
            return False
        self.checkpoints.finish()  # else the best so far is not known
        return broadcast(score > self.checkpoints.best_score())

    def _save(self, score: float | None) -> None:
        if self.saved == self.done:  # by a stop, before its validation
            if score is not None and self.process.is_first:
                self.checkpoints.finish()
                self.checkpoints.rate(self.done, score)
            return
        trained = {name: part.state_dict() for name, part in self.state().items() if name != "provenance"}
        self.journal.outcomes.refuse_nonfinite(trained, self.done)
        if self.process.is_first:
            self.checkpoints.save_in_background(self.done, score, **self.state())
        self.saved = self.done

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Wait for the last checkpoint in the end; the first error is the one to read."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.checkpoints.finish()
            raise
        self.checkpoints.finish()

    def stopped(self, what: str) -> StoppedError:
        """The error that a run ends with which was told to stop."""
        program = PROGRAM
        if self.process.count > 1:
            program = f"torchrun … {f'--no-python {PROGRAM}' if IS_COMMAND else 'train.py'}"
        return StoppedError(f"{what} Go on with: {program} resume={self.folder}")
