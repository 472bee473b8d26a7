"""What came of the steps: numbers, or that they were skipped. They are looked at together, so that no step waits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vqgan.data.loader import REMEMBERED
from vqgan.errors import DivergedError
from vqgan.loggers import Rows
from vqgan.runs.folder import has_checkpoints
from vqgan.runtime.collectives import gather
from vqgan.training.finite import SkippedSteps, nonfinite

SKIPPED = "skipped_batches.jsonl"  # in the run folder: the clips of each step whose numbers were not finite


class Drawn(Protocol):
    """What knows which clips the newest batches held."""

    drawn: dict[int, list[dict[str, Any]]]  # by the number of the batch


@dataclass
class Outcome:
    """A step that was computed, and not yet looked at: its numbers may not be there yet."""

    step: int
    finite: Tensor  # whether it counts
    metrics: dict[str, Tensor]  # detached scalars on the device, averaged over micro-batches and processes


class Outcomes:
    """Keeps the newest value of each metric, and ends a run of which too many steps are not finite.

    Args:
        skipped: counts those that are not.
        loader: knows which clips a step was trained on.
        accumulate: batches of a step.
        folder: of the run.
        writes: whether this process writes down the clips.
    """

    def __init__(self, skipped: SkippedSteps, loader: Drawn, accumulate: int, folder: Path, writes: bool) -> None:
        self.skipped, self.loader, self.accumulate, self.folder = skipped, loader, accumulate, folder
        self.writes = writes
        self.pending: list[Outcome] = []  # steps that were not looked at yet
        self.latest: dict[str, Any] = {}  # of each metric, whichever step it is from
        self.rows = Rows(folder / SKIPPED)

    def add(self, outcome: Outcome) -> None:
        """One more step is computed."""
        self.pending.append(outcome)

    def are_many(self) -> bool:
        """Whether one step more would be one whose clips are forgotten before it is looked at."""
        return (len(self.pending) + 1) * self.accumulate > REMEMBERED

    def settle(self) -> None:
        """Look at the steps since the last look: take their numbers, or write down that they were skipped.

        Raises:
            DivergedError: too many were.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        for outcome, finite in zip(pending, torch.stack([outcome.finite for outcome in pending]).tolist()):
            if finite:
                self.latest |= outcome.metrics
                continue
            self._write_down_batch(outcome.step)
            too_many = self.skipped.add(outcome.step)
            if too_many:
                raise self._diverged(
                    f"losses or gradients of {too_many} are not finite, the last of step {outcome.step}"
                )

    def numbers(self) -> dict[str, float]:
        """The newest value of each metric."""
        values = [torch.as_tensor(value).to(self._device()) for value in self.latest.values()]
        numbers = torch.stack(values).tolist() if values else []  # at once: each reading waits for the device
        return dict(zip(self.latest, numbers))

    def refuse_nonfinite(self, values: Any, done: int) -> None:
        """Check what is about to be logged or saved after `done` steps.

        Raises:
            DivergedError: a number in it is not finite.
        """
        broken = nonfinite(values)
        if broken:
            self._write_down_batch(done - 1)
            verb = "is" if len(broken) == 1 else "are"
            raise self._diverged(f"at step {done} {', '.join(broken[:5])} {verb} not finite")

    def state_dict(self) -> dict[str, Any]:
        """The numbers, so that a resumed run's first row has all of them, and what was skipped."""
        written = self.rows.state_dict() if self.writes else {}
        return {"latest": self.numbers(), "skipped": self.skipped.state_dict(), "written": written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the numbers, and drop clips of steps that come again; 0.1 did not know how many there were."""
        self.latest = dict(state["latest"])
        self.skipped.load_state_dict(state["skipped"])
        if "written" in state:
            self._drop_rows(state["written"])

    def begin(self) -> None:
        """Of a run without a checkpoint: all of its steps come again."""
        self._drop_rows({})

    def _drop_rows(self, state: dict[str, Any]) -> None:
        if self.writes:
            self.rows.load_state_dict(state)

    def _device(self) -> torch.device:
        devices = [value.device for value in self.latest.values() if isinstance(value, Tensor)]
        return devices[0] if devices else torch.device("cpu")

    def _diverged(self, what: str) -> DivergedError:
        checkpoints = self.folder / "checkpoints"
        saved = (
            f"The newest checkpoint in {checkpoints} is from before"
            if has_checkpoints(self.folder)
            else "No checkpoint was saved"
        )
        return DivergedError(
            f"Training diverged: {what}. {saved}; the clips of the last batch are in {self.folder / SKIPPED}. Try a "
            "lower optimizer.lr, trainer.clip_gradients=1, or trainer.precision=fp32."
        )

    def _write_down_batch(self, step: int) -> None:
        """Which clips a step was trained on: a line of `skipped_batches.jsonl`."""
        first = step * self.accumulate
        own = [source for n in range(self.accumulate) for source in self.loader.drawn.get(first + n, [])]
        clips = [source for part in gather(own) for source in part]
        if self.writes:
            self.rows.append({"step": step, "clips": clips})
