"""How a reconstruction changes from frame to frame."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vqgan.frames import Frames
from vqgan.losses.objective import ReconstructionTerm


class Temporal(ReconstructionTerm):
    """mean |(x̂_{t+1} - x̂_t) - (x_{t+1} - x_t)|, over all values and pairs of neighbouring frames; 0 for pictures.

    Of frames in [-1, 1]: 127.5 times it is the `flicker` that evaluations measure, but for their rounding. A still
    place that shimmers costs, and a motion that is missed; an error that stays where it is costs nothing.
    """

    def forward(self, frames: Frames, reconstruction: Frames, step: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """The mean over this batch."""
        changes = (reconstruction - frames).diff(dim=1).abs()
        return changes.sum() / max(1, changes.numel())  # of no pair 0, with a gradient
