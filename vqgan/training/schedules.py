"""Learning-rate schedules: a factor as a function of the step alone, so there is no state to save."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from vqgan.errors import check


class Schedule(ABC):
    """Maps a step, counted from 0, to the factor that both optimizers' learning rates are multiplied by."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor of step `step`."""


class Constant(Schedule):
    """The learning rate as it is, after a linear warm-up over `warmup_steps` steps (0 for none)."""

    def __init__(self, warmup_steps: int) -> None:
        check(warmup_steps >= 0, "warmup_steps", warmup_steps, "at least 0")
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        """In (0, 1]."""
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0


class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine from 1 down to `final_factor` at `total_steps` (Loshchilov & Hutter 2017)."""

    def __init__(self, warmup_steps: int, total_steps: int, final_factor: float) -> None:
        check(warmup_steps >= 0, "warmup_steps", warmup_steps, "at least 0")
        check(
            total_steps > warmup_steps,
            "total_steps",
            total_steps,
            f"more than warmup_steps={warmup_steps} (lower that, or raise trainer.steps)",
        )
        check(0 <= final_factor <= 1, "final_factor", final_factor, "in [0, 1]")
        self.warmup_steps, self.total_steps, self.final_factor = warmup_steps, total_steps, final_factor

    def __call__(self, step: int) -> float:
        """In [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
