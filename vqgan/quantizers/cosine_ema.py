"""Unit vectors as codes, which follow the mean direction of their latents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.quantizers.cosine import unit
from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.quantizer import Quantized
from vqgan.quantizers.rotation import Gradient

EPS = 1e-5  # smooths the sizes of clusters, by which sums are divided; directions do not depend on it
LOST = 1e-12  # a code shorter than that has no direction any more


class CosineEMAQuantizer(EMAQuantizer):
    """`EMAQuantizer` on the unit sphere: latents are normalised before, codes after each update.

    With ẑ = z/‖z‖: M_i ← decay · M_i + (1 - decay) · Σ ẑ of those that chose i, and e_i ← M_i/‖M_i‖. Each latent is
    replaced by the code with the largest cosine, and loss = commitment_weight · mean (ẑ - sg[e])². The decoder gets
    unit vectors. What `CosineQuantizer` is for, with codes that need no learning rate.

    Reference: `CosineSimCodebook` of lucidrains/vector-quantize-pytorch.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0.
        decay: in [0, 1).
        gradient: how gradients pass to ẑ, see `pass_gradient`.
        start_from_data: begin with codes drawn from the first batch's latents instead of evenly in all directions.
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
    """

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        decay: float,
        gradient: Gradient,
        start_from_data: bool,
        revive_after: int | None,
    ) -> None:
        super().__init__(
            codebook_size, latent_dim, commitment_weight, decay, EPS, start_from_data, revive_after, gradient
        )
        self.codebook.copy_(unit(self.codebook, 1))
        self.cluster_sums.copy_(self.codebook)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by the code of the most similar direction, a unit vector."""
        return super().forward(unit(latents, -3))

    def codes(self) -> Float[Tensor, "codes latent"]:
        """The codebook, of unit vectors also where it is an average of several."""
        return unit(self.codebook, 1)

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages and the codes by what was summed since the last call."""
        before = self.codebook.clone()
        super().update()
        # The sum of a code that nothing chooses decays, in the end below what a float can hold.
        lengths = self.codebook.norm(dim=1, keepdim=True)
        self.codebook.copy_(torch.where(lengths > LOST, self.codebook / lengths, before))
