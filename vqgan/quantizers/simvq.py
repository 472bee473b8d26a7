"""Codes that never change on their own: one linear map moves all of them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.assignment import look_up, nearest, to_grid, to_vectors
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.rotation import Gradient, pass_gradient
from vqgan.quantizers.usage import CodeUse


class ProjectedQuantizer(Quantizer):
    """SimVQ (Zhu et al. 2024, arXiv:2411.02038): codes e = W c + b, where c is drawn once from N(0, 1/latent_dim).

    loss = codebook_weight · mean (e - sg[z])² + commitment_weight · mean (z - sg[e])²,   learnt are W and b alone

    Each step moves every code, chosen or not, so none is left behind: published with all of 2^10 to 2^18 codes in use,
    of 128 dimensions, weights 1 and 0.25, a constant learning rate of 1e-4. Choose it for large codebooks; W learns all
    that there is to learn, so a short run with few codes gains nothing. Clip gradients: NaN was reported without.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
        gradient: how gradients pass to the latents, see `pass_gradient`.
    """

    use: CodeUse

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        codebook_weight: float,
        gradient: Gradient,
    ) -> None:
        super().__init__(codebook_size, latent_dim)
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(codebook_weight >= 0, "codebook_weight", codebook_weight, "at least 0")
        self.commitment_weight, self.codebook_weight, self.gradient = commitment_weight, codebook_weight, gradient
        # No buffer, though nothing moves it: of buffers each step keeps a copy, and this one may be large.
        self.frozen = nn.Parameter(torch.randn(codebook_size, latent_dim) * latent_dim**-0.5, requires_grad=False)
        self.projection = nn.Linear(latent_dim, latent_dim)
        self.use = CodeUse(self, codebook_size)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code."""
        codebook = self.codebook()
        indices = to_grid(nearest(to_vectors(latents).detach(), codebook), latents)
        # Only chosen codes have a gradient, so only they are projected a second time: no graph over all codes.
        learning = rearrange(self.projection(self.frozen[indices]), "... h w c -> ... c h w")
        codebook_loss = F.mse_loss(learning, latents.detach())
        commitment_loss = F.mse_loss(latents, learning.detach())
        loss = self.codebook_weight * codebook_loss + self.commitment_weight * commitment_loss
        codes = look_up(codebook, indices)
        metrics = {"perplexity": self.use.count(indices)}
        return Quantized(pass_gradient(self.gradient, latents, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        return look_up(self.codebook(), indices)

    @torch.no_grad()
    def codebook(self) -> Float[Tensor, "codes latent"]:
        """All codes, always computed at once: for fewer rows the last bits of a product could differ."""
        return self.projection(self.frozen)
