"""The best values of a run so far, which are what runs are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqgan.runs.criterion import PSNR, Criterion, criterion_in

MEASURES = tuple(f"validation/{name}" for name in ("psnr", "ssim", "lpips", "rfid", "rfvd"))
BEST_STEP = "best/step"  # by the objective


class Best:
    """The best value of each measure, and the step of the best one by the objective, whose checkpoint is `best`."""

    def __init__(self, objective: Criterion = PSNR) -> None:
        self.objective = objective
        self.names = tuple(dict.fromkeys((*MEASURES, objective.scalar)))
        self.values: dict[str, float] = {}

    def look(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Take a row; returns the best values, by the scalars' own names, after an evaluation, else nothing."""
        measured = {name: scalars[name] for name in self.names if name in scalars}
        if measured and step > 0 and self.values.get(BEST_STEP) == 0:
            self.values.clear()  # before the first step: no run's best, and no checkpoint, unless it is all there is
        for name, value in measured.items():
            sign = 1 if self.objective.is_higher_better(name) else -1
            if name not in self.values or sign * value > sign * self.values[name]:
                self.values[name] = value
                if name == self.objective.scalar:
                    self.values[BEST_STEP] = step
        return dict(self.values) if measured else {}

    def state_dict(self) -> dict[str, Any]:
        """The values, and by which objective the step is."""
        return {**self.values, "objective": self.objective.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values; with another objective than then, the best is sought anew, as among the checkpoints."""
        self.values = {name: value for name, value in state.items() if name != "objective"}
        if criterion_in(state) != self.objective:
            for name in (self.objective.scalar, BEST_STEP):
                self.values.pop(name, None)
