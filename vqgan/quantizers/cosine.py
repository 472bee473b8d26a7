"""Unit vectors as codes, learnt by gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.assignment import look_up, nearest, to_grid, to_vectors
from vqgan.quantizers.placement import Placement
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.rotation import Gradient, pass_gradient
from vqgan.quantizers.usage import CodeUse

SHORTEST = 1e-6  # vectors below it come out shorter than 1, else the gradient at 0 would have no bound


def unit(vectors: Tensor, dim: int) -> Tensor:
    """The same directions, with length 1."""
    return F.normalize(vectors, dim=dim, eps=SHORTEST)


class CosineQuantizer(Quantizer):
    """Vector quantization on the unit sphere (ViT-VQGAN, arXiv:2110.04627; LlamaGen, arXiv:2406.06525).

    With ẑ = z/‖z‖ and q = e/‖e‖, of which the one with the largest cosine is taken::

        loss = codebook_weight · mean (sg[ẑ] - q)² + commitment_weight · mean (ẑ - sg[q])²      (means over all numbers)

    The decoder gets unit vectors; the gradient goes back through the normalisation, which takes out what would change
    a latent's length. Codes cannot lie out of reach, so far more of a large codebook is used; published with 8
    dimensions (LlamaGen), 12 and 32, weights 1 and 0.25.

    An optimizer's step turns a code by about lr/‖e‖: so codes begin with length 1, and weight decay, which shortens
    them, makes later steps longer.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
        gradient: how gradients pass to ẑ, see `pass_gradient`.
        start_from_data: begin with codes drawn from the first batch's latents instead of evenly in all directions.
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
    """

    use: CodeUse

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        codebook_weight: float,
        gradient: Gradient,
        start_from_data: bool,
        revive_after: int | None,
    ) -> None:
        super().__init__(codebook_size, latent_dim)
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(codebook_weight >= 0, "codebook_weight", codebook_weight, "at least 0")
        self.commitment_weight, self.codebook_weight, self.gradient = commitment_weight, codebook_weight, gradient
        self.codebook = nn.Parameter(unit(torch.randn(codebook_size, latent_dim), 1))
        self.use = CodeUse(self, codebook_size)
        self.placement = Placement(start_from_data, revive_after)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by the code of the most similar direction, a unit vector."""
        directions = unit(latents, -3)
        flat = to_vectors(directions.detach())
        self.placement(self.codebook, flat, self.use.idle)
        codebook = unit(self.codebook, 1)
        # On the unit sphere |ẑ - q|² = 2 - 2 ẑ·q: the nearest is the most similar.
        indices = to_grid(nearest(flat, codebook.detach()), latents)
        codes = look_up(codebook, indices)
        codebook_loss = F.mse_loss(codes, directions.detach())
        commitment_loss = F.mse_loss(directions, codes.detach())
        loss = self.codebook_weight * codebook_loss + self.commitment_weight * commitment_loss
        metrics = {"perplexity": self.use.count(indices)}
        return Quantized(pass_gradient(self.gradient, directions, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        # All are normalised, as in `forward`: of another number of rows the last bits could differ.
        return look_up(unit(self.codebook, 1), indices)

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        super().update()
        self.placement.update()
