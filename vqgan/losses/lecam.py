"""A discriminator that may not run away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.losses.objective import DiscriminatorTerm, Judgement
from vqgan.runtime.collectives import mean_over_processes


class LeCam(DiscriminatorTerm):
    """mean max(0, D(x) - α_fake)² + mean max(0, α_real - D(x̂))² (Tseng et al. 2021, arXiv:2104.03310, section 4.1).

    α are moving averages of the mean logits, over all processes, this batch included. It holds logits of real frames
    near what fakes got, and the other way round: for few data, long runs, or a discriminator that wins. Published
    weights are 0.001 (MaskBit, TiTok: of the batch's mean logit instead of each patch's, which is far weaker), 0.005
    (VidTok) and 0.05 (Open-MAGVIT2, arXiv:2409.04410).

    The averages are free of their start: the first batch's are its own means. With several micro-batches a step they
    move once for each of them.

    Args:
        weight: at least 0.
        decay: of the averages, in [0, 1).
    """

    average: Tensor

    def __init__(self, weight: float, decay: float) -> None:
        check(0 <= decay < 1, "decay", decay, "in [0, 1)")
        super().__init__(weight)
        self.decay = decay
        # Of real logits, fake logits and 1. The last is what is missing yet in the other two.
        self.register_buffer("average", torch.zeros(3))

    def forward(self, discriminator: nn.Module, judged: Judgement, step: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """A mean over all patches."""
        real, fake = self._move(judged)
        return F.relu(judged.real - fake).square().mean() + F.relu(real - judged.fake).square().mean()

    @torch.no_grad()
    def _move(self, judged: Judgement) -> tuple[Tensor, Tensor]:
        means = mean_over_processes(torch.stack([judged.real.mean(), judged.fake.mean()]))
        self.average.lerp_(F.pad(means, (0, 1), value=1.0), 1 - self.decay)
        real, fake = self.average[:2] / self.average[2]
        return real, fake
