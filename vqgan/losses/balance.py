"""How heavy the adversary is beside the other terms."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.errors import check
from vqgan.frames import Frames
from vqgan.runtime.collectives import mean_over_processes


class Balance(ABC):
    """The factor λ of the adversarial term, beside `discriminator_weight`.

    Attributes:
        largest: what λ is clamped to; None where it is not.
    """

    largest: float | None = None

    @abstractmethod
    def __call__(self, reconstruction: Frames, nll: Frames, g: Frames, last_layer: Tensor) -> Float[Tensor, ""]:
        """λ of this step, without gradient, the same in all processes.

        Args:
            reconstruction: with its graph.
            nll: the gradient of the other terms at the reconstruction.
            g: the gradient of the adversarial term there.
            last_layer: the decoder's last weight.
        """


class Adaptive(Balance):
    """λ = ‖∂nll/∂W‖ / (‖∂g/∂W‖ + 1e-4), at most `max_weight`; W is the decoder's last layer.

    Both terms pull equally hard at the last layer, whatever their scales (Esser et al. 2021, arXiv:2012.09841,
    equation 7). For recipes of VQGAN's line, and where the pixel distance or its weight changes from run to run.

    Args:
        max_weight: positive.
    """

    def __init__(self, max_weight: float) -> None:
        check(max_weight > 0, "max_weight", max_weight, "positive")
        self.largest: float = max_weight

    def __call__(self, reconstruction: Frames, nll: Frames, g: Frames, last_layer: Tensor) -> Float[Tensor, ""]:
        """λ needs only the way from the reconstruction through the last layer: two small backward passes."""
        gradients = [
            torch.autograd.grad(reconstruction, last_layer, gradient, retain_graph=True)[0].float()
            for gradient in (nll, g)
        ]
        # Of the whole batch: the norm of the mean, not the mean of the norms of each process's share.
        norms = [gradient.norm() for gradient in mean_over_processes(torch.stack(gradients))]
        return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, self.largest)


class Fixed(Balance):
    """λ = 1: the adversarial term has the weight `discriminator_weight` and no other.

    Most tokenizers since 2024 do so, with a small weight from 0.01 to 0.5 (LlamaGen, arXiv:2406.06525: 0.5; MaskBit,
    arXiv:2409.16211: 0.02; Open-MAGVIT2, arXiv:2409.04410: 0.1). What it means depends on the pixel distance and its
    weight; in exchange the adversary fades where the discriminator has nothing to say, instead of being amplified.
    """

    def __call__(self, reconstruction: Frames, nll: Frames, g: Frames, last_layer: Tensor) -> Float[Tensor, ""]:  # noqa: ARG002
        """One."""
        return torch.ones((), device=reconstruction.device)
