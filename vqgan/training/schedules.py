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


class Annealed(Schedule):
    """Linear warm-up, then a fall from 1 down to `final_factor` at `total_steps`, where it stays.

    Most published recipes of long runs fall to a tenth of the rate or less.

    Args:
        warmup_steps: at least 0; the first step has the factor 1/warmup_steps.
        total_steps: of the run; more than `warmup_steps`.
        final_factor: in [0, 1].
    """

    def __init__(self, warmup_steps: int, total_steps: int, final_factor: float) -> None:
        check(warmup_steps >= 0, "warmup_steps", warmup_steps, "at least 0")
        less = f"less than total_steps={total_steps} (lower it, or raise trainer.steps)"
        check(warmup_steps < total_steps, "warmup_steps", warmup_steps, less)
        check(0 <= final_factor <= 1, "final_factor", final_factor, "in [0, 1]")
        self.warmup_steps, self.total_steps, self.final_factor = warmup_steps, total_steps, final_factor
        self.falls_from: float = warmup_steps

    def __call__(self, step: int) -> float:
        """In [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.falls_from) / (self.total_steps - self.falls_from)
        return self.final_factor + (1 - self.final_factor) * self.left(min(1.0, max(0.0, progress)))

    @abstractmethod
    def left(self, progress: float) -> float:
        """How much of the fall is still to come: from 1 at progress 0 down to 0 at 1."""


class WarmupCosine(Annealed):
    """Linear warm-up, then half a cosine from 1 down to `final_factor` at `total_steps` (Loshchilov & Hutter 2017)."""

    def left(self, progress: float) -> float:
        """Slow at both ends."""
        return 0.5 * (1 + math.cos(math.pi * progress))


class WarmupLinear(Annealed):
    """Linear warm-up, a time at the full rate, then a straight line down to `final_factor` at `total_steps`.

    With `hold_until` at 0.8 or 0.9 it is what is called warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395): a
    run can be made longer from a checkpoint of before the fall, as if it had been longer from the start.

    Args:
        warmup_steps: at least 0; the first step has the factor 1/warmup_steps.
        total_steps: of the run; more than `warmup_steps`.
        final_factor: in [0, 1].
        hold_until: in [0, 1); the share of `total_steps` after which the rate falls, at the earliest after the warm-up.
    """

    def __init__(self, warmup_steps: int, total_steps: int, final_factor: float, hold_until: float) -> None:
        super().__init__(warmup_steps, total_steps, final_factor)
        check(0 <= hold_until < 1, "hold_until", hold_until, "in [0, 1)")
        self.falls_from = max(warmup_steps, hold_until * total_steps)

    def left(self, progress: float) -> float:
        """The same in each step."""
        return 1 - progress
