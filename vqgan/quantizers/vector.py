"""A codebook that learns by gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.assignment import nearest, straight_through
from vqgan.quantizers.quantizer import Quantized, Quantizer


class VectorQuantizer(Quantizer):
    """Vector quantization of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, equation 3).

    loss = codebook_weight · mean |sg[z] - e|² + commitment_weight · mean |z - sg[e]|²

    The paper has codebook_weight 1 and commitment_weight β = 0.25. taming-transformers' `VQModel` has them the other
    way round (`legacy=True` of `VectorQuantizer2`): for its numbers set 0.25 and 1.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
    """

    def __init__(self, codebook_size: int, latent_dim: int, commitment_weight: float, codebook_weight: float) -> None:
        super().__init__(codebook_size, latent_dim)
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(codebook_weight >= 0, "codebook_weight", codebook_weight, "at least 0")
        self.commitment_weight, self.codebook_weight = commitment_weight, codebook_weight
        bound = 1.0 / codebook_size
        self.codebook = nn.Parameter(torch.empty(codebook_size, latent_dim).uniform_(-bound, bound))

    def forward(self, latents: Float[Tensor, "frames latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code."""
        flat = rearrange(latents, "n c h w -> (n h w) c")
        nearest_codes = nearest(flat.detach(), self.codebook.detach())
        indices = nearest_codes.view(len(latents), *latents.shape[2:])
        codes = self.lookup(indices)
        codebook_loss = F.mse_loss(codes, latents.detach())
        commitment_loss = F.mse_loss(latents, codes.detach())
        loss = self.codebook_weight * codebook_loss + self.commitment_weight * commitment_loss
        return Quantized(straight_through(latents, codes), indices, loss, self.count(indices))
