"""The algorithm: one step of a prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vqgan.prior.data import Clips
from vqgan.prior.transformer import Transformer
from vqgan.runs.checkpoint import Stateful
from vqgan.runtime.process import ALONE, Process
from vqgan.training.algorithm import Algorithm
from vqgan.training.outcomes import Outcome
from vqgan.training.player import Player
from vqgan.training.settings import LoopSettings
from vqgan.training.step import RANKS_APART, mean_of

NAME = "prior"  # of the network in a checkpoint
AVERAGE = f"{NAME}_average"


@dataclass(kw_only=True, eq=False)
class PriorStep(Algorithm):
    """The mean of -log p(code | those before it) over a batch, down its gradient; without effect if it is not finite.

    Args:
        settings: precision.
        prior: the network, and what moves it.
        device: of the network.
        seed: of every random choice.
        process: which of several this is, each of which computes a share of every step.
    """

    settings: LoopSettings
    prior: Player[Transformer]
    device: torch.device
    seed: int
    process: Process = ALONE

    def __post_init__(self) -> None:
        self.players = [self.prior]

    def __call__(self, number: int, batches: Sequence[Clips]) -> Outcome:
        """See `Algorithm`."""
        torch.manual_seed((self.seed << 32) + self.process.rank * RANKS_APART + number)  # of dropout
        parts = []
        for batch in batches:
            clips = batch.to(self.device)
            with self.autocast():
                loss = self.prior.network(clips.codes, clips.begins, clips.side).mean()
            (loss / len(batches)).backward()
            parts.append({"train/total": loss.detach(), "train/bits_per_token": loss.detach() / math.log(2)})
        metrics = mean_of(parts)
        finite = torch.stack([metrics["train/total"], self.prior.finish()]).isfinite().all()
        self.prior.update(number, finite)
        self.prior.average_weights(number, finite)
        return Outcome(number, finite, metrics)

    def undo(self) -> None:
        """A step changes nothing before it is over."""

    def autocast(self) -> torch.autocast:
        """The precision of the network."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def state(self) -> dict[str, Stateful]:
        """The network, its optimizer, and the average of its weights where there is one."""
        return self.prior.state(NAME)

    def row(self, done: int) -> dict[str, float]:
        """The learning rate."""
        return {f"learning_rate/{NAME}": float(self.prior.learning_rate(done - 1))}

    def frames(self, number: int, batches: Sequence[Clips]) -> int:  # noqa: ARG002
        """Times of codes, which are frames where none share codes."""
        return sum(batch.codes.shape[0] * batch.codes.shape[1] for batch in batches)
