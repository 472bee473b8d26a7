"""Warnings that teach, of priors: what a run's numbers say is going wrong, and what to try; see `training/advice`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from statistics import fmean, median
from typing import Any

from vqgan.prior.validation import BITS
from vqgan.training.advice import AdvisorOf, nonfinite_steps
from vqgan.training.history import FEWEST, LATER_EVALUATIONS, SOME_STEPS, Row

TRAINED = "train/bits_per_token"
WORSE, BETTER = 1.01, 0.97  # of validation's bits at their lowest, of training's then: by heart
RISING = 1.15  # of the lowest median over some steps; noise of small batches stays within a tenth


@dataclass(frozen=True, kw_only=True)
class PriorSetup:
    """What the rules need to know of a run.

    Args:
        steps: of it.
        order0: the order-0 entropy of the codes that are validated on, in bits.
        lr: the learning rate at its highest.
        dropout: of the network.
    """

    steps: int
    order0: float
    lr: float
    dropout: float


@dataclass
class PriorHistory:
    """What the rules look at.

    Attributes:
        rows: of the last 100 steps, or the last three, with `step` and the scalars that rules look at.
        lowest: the lowest median of bits in training over such rows.
        evaluations: the best one and the last three after it, each with `step`, `bits` and `trained`, the mean then.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    lowest: float = inf
    evaluations: list[dict[str, float]] = field(default_factory=list)

    @property
    def lately(self) -> float | None:
        """The median of bits in training, which a few batches do not move; None at the beginning."""
        known = len(self.rows) >= FEWEST and self.rows[-1]["step"] >= SOME_STEPS
        return median(row[TRAINED] for row in self.rows) if known else None

    def add(self, step: int, row: Row) -> None:
        """Take the row of a step."""
        if TRAINED in row:
            kept = {name: float(row[name]) for name in (TRAINED, "train/skipped_steps")}
            self.rows.append({"step": step, **kept})
            while len(self.rows) > FEWEST and self.rows[0]["step"] <= step - SOME_STEPS:
                self.rows.pop(0)
            self.lowest = min(self.lowest, self.lately or inf)
        if BITS in row and self.rows:
            trained = fmean(row[TRAINED] for row in self.rows)
            found = [*self.evaluations, {"step": step, "bits": float(row[BITS]), "trained": trained}]
            best = min(range(len(found)), key=lambda n: found[n]["bits"])
            self.evaluations = [found[best], *found[best + 1 :][-LATER_EVALUATIONS:]]

    def state_dict(self) -> dict[str, Any]:
        """All of it, as one text."""
        return {"json": json.dumps([self.rows, self.lowest, self.evaluations])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.rows, self.lowest, self.evaluations = json.loads(state["json"])


def above_order0(history: PriorHistory, setup: PriorSetup) -> str | None:
    """After half of the steps held-out codes still cost as much as by how often each is used."""
    newest = history.evaluations[-1] if history.evaluations else None
    if newest is None or newest["step"] < setup.steps / 2 or newest["bits"] < setup.order0:
        return None
    return (
        f"Held-out codes cost {newest['bits']:.3g} bits, and {setup.order0:.3g} by how often each is used alone: the "
        f"prior has learned nothing that holds of other videos, so try another optimizer.lr than {setup.lr:g}, more "
        "trainer.steps, and more videos if training costs far less."
    )


def learned_by_heart(history: PriorHistory, setup: PriorSetup) -> str | None:
    """Held-out codes cost more for three evaluations, while those that are trained on went on to cost less."""
    best, *later = history.evaluations or [{}]
    if len(later) < LATER_EVALUATIONS or min(one["bits"] for one in later) < WORSE * best["bits"]:
        return None
    newest = later[-1]
    if newest["trained"] > BETTER * best["trained"]:
        return None
    return (
        f"Held-out codes cost {best['bits']:.3g} bits at step {best['step']:.0f} and {newest['bits']:.3g} now, while "
        f"those of training fell from {best['trained']:.3g} to {newest['trained']:.3g}: the prior learns its videos by "
        f"heart, so keep the best checkpoint, or try more videos, a higher prior.dropout than {setup.dropout:g}, or a "
        "smaller prior."
    )


def bits_rising(history: PriorHistory, setup: PriorSetup) -> str | None:
    """What is trained on costs more than it did."""
    lately = history.lately
    if lately is None or lately < RISING * history.lowest:
        return None
    return (
        f"Codes of training cost {lately:.3g} bits, and {history.lowest:.3g} before: the steps are too large, so try a "
        f"lower optimizer.lr than {setup.lr:g}, more schedule.warmup_steps, or trainer.clip_gradients=1 if it is not "
        "set."
    )


RULES: tuple[Callable[[Any, Any], str | None], ...] = (above_order0, learned_by_heart, bits_rising, nonfinite_steps)


class PriorAdvisor(AdvisorOf[PriorSetup]):
    """The advisor of a prior's run."""

    def __init__(self, setup: PriorSetup) -> None:
        super().__init__(setup, RULES, PriorHistory())
