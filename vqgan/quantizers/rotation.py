"""How gradients pass the choice of codes, which has none of its own: straight through, or turned with the latents."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.quantizers.assignment import straight_through

Gradient = Literal["straight_through", "rotation"]  # what yaml says
TOO_SMALL = 1e-6  # of a length beside another: its direction is rounding


def pass_gradient(
    gradient: Gradient,
    latents: Float[Tensor, "*batch latent rows columns"],
    codes: Float[Tensor, "*batch latent rows columns"],
) -> Float[Tensor, "*batch latent rows columns"]:
    """`codes` going forward, to the last bit; going back, the gradient of `latents` that the estimator makes of it.

    `straight_through` hands the gradient on as it is (Bengio et al. 2013, arXiv:1308.3432). `rotation` turns and
    scales it as one would have to turn and scale z to get its code q (Fifty et al. 2024, arXiv:2410.06424, section 4)::

        g_z = λ (g - 2 r (r·g) + 2 ẑ (q̂·g)),   ẑ = z/‖z‖,  q̂ = q/‖q‖,  r = (ẑ + q̂)/‖ẑ + q̂‖,  λ = ‖q‖/‖z‖

    so that latents of one code get different gradients, by where they are around it. Worth a try where codes lie
    idle; λ makes gradients large where latents are much shorter than their codes, so clip them. No gradient reaches
    the codes.
    """
    if gradient == "straight_through":
        return straight_through(latents, codes)
    turned: Tensor = _Rotated.apply(latents, codes.detach())
    return turned


class _Rotated(torch.autograd.Function):
    """The published way multiplies z by λR, which rounds: what it gives is no code any more."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(latents, codes)
        return codes.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (g,) = outer
        z, q = ctx.saved_tensors
        z_length, q_length = (x.norm(dim=-3, keepdim=True) for x in (z, q))
        z_unit, q_unit = z / z_length, q / q_length
        between = z_unit + q_unit
        length = between.norm(dim=-3, keepdim=True)
        r = between / length
        turned = g - 2 * r * _dot(r, g) + 2 * z_unit * _dot(q_unit, g)
        # No rotation is meant from or to the origin, and any would do to the opposite side: straight through there.
        sound = (length > TOO_SMALL) & (z_length > TOO_SMALL * q_length) & (q_length > TOO_SMALL * z_length)
        return torch.where(sound, q_length / z_length * turned, g), None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-3, keepdim=True)
