"""Distances of pixels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vqgan.frames import Frames
from vqgan.losses.objective import ReconstructionTerm


class L1(ReconstructionTerm):
    """mean |x - x̂|, over all values in [-1, 1]."""

    def forward(self, frames: Frames, reconstruction: Frames, step: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """The mean over this batch."""
        return (frames - reconstruction).abs().mean()


class L2(ReconstructionTerm):
    """mean (x - x̂)², over all values in [-1, 1]."""

    def forward(self, frames: Frames, reconstruction: Frames, step: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """The mean over this batch."""
        return (frames - reconstruction).square().mean()
