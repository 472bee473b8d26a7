"""A codebook that learns by gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.assignment import look_up, nearest, to_grid, to_vectors
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.rotation import Gradient, pass_gradient
from vqgan.quantizers.usage import CodeUse


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
        gradient: how gradients pass to the latents, see `pass_gradient`; not said in older tokenizers.
    """

    use: CodeUse

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        codebook_weight: float,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__(codebook_size, latent_dim)
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(codebook_weight >= 0, "codebook_weight", codebook_weight, "at least 0")
        self.commitment_weight, self.codebook_weight, self.gradient = commitment_weight, codebook_weight, gradient
        # Much closer together than latents are: the first steps pull the chosen ones out (the reference's start).
        bound = 1.0 / codebook_size
        self.codebook = nn.Parameter(torch.empty(codebook_size, latent_dim).uniform_(-bound, bound))
        self.use = CodeUse(self, codebook_size)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code."""
        indices = to_grid(nearest(to_vectors(latents).detach(), self.codebook.detach()), latents)
        codes = self.lookup(indices)
        codebook_loss = F.mse_loss(codes, latents.detach())
        commitment_loss = F.mse_loss(latents, codes.detach())
        loss = self.codebook_weight * codebook_loss + self.commitment_weight * commitment_loss
        metrics = {"perplexity": self.use.count(indices)}
        return Quantized(pass_gradient(self.gradient, latents, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        return look_up(self.codebook, indices)
