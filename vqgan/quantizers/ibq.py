"""Index backpropagation: gradients reach every code, not the chosen ones alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.assignment import look_up, to_grid, to_vectors
from vqgan.quantizers.placement import Placement
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.softmax import entropies, expected_code, most_aligned
from vqgan.quantizers.usage import CodeUse


class IndexPropagationQuantizer(Quantizer):
    """IBQ (Shi et al. 2024, arXiv:2412.02692): each latent takes the code of the largest product z·e.

    With s = softmax_k(z·e_k), h the one-hot choice and q = h E, what goes on is q̃ = (h - sg[s] + s) E: the code going
    forward, and going back a gradient for all codes, by how near they were to being chosen::

        loss = soft_weight · mean (q̃ - z)² + commitment_weight · mean (z - sg[q])² + codebook_weight · mean (q - sg[z])²
             + entropy_weight · (mean_n H(p_n) - diversity_weight · H(mean_n p_n)),   p = softmax_k(z·e_k / temperature)

    In evaluation the entropies are left out. Nothing of the size latents × codes is ever in memory (see `softmax`), but
    the gradient and an optimizer's state are as large as the codebook. Published with 2^14 to 2^18 codes of 256
    dimensions, weights 1, 1, 0.25 and 0.05, a batch of 256 pictures. Products are not divided by lengths: long codes
    win. Choose it for large codebooks of many dimensions and long runs.

    Args:
        codebook_size: number of codes, which begin as N(0, 1).
        latent_dim: dimension of a code.
        soft_weight: at least 0; pulls latents, and all codes, by the gradient of the choice.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
        entropy_weight: at least 0; at 0 the entropies are not computed.
        diversity_weight: at least 0; how much evenly used codes count beside latents that are sure of theirs.
        temperature: positive; of the entropies.
        start_from_data: begin with codes drawn from the first batch's latents instead of N(0, 1).
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
    """

    use: CodeUse

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        soft_weight: float,
        commitment_weight: float,
        codebook_weight: float,
        entropy_weight: float,
        diversity_weight: float,
        temperature: float,
        start_from_data: bool,
        revive_after: int | None,
    ) -> None:
        super().__init__(codebook_size, latent_dim)
        check(soft_weight >= 0, "soft_weight", soft_weight, "at least 0")
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(codebook_weight >= 0, "codebook_weight", codebook_weight, "at least 0")
        check(entropy_weight >= 0, "entropy_weight", entropy_weight, "at least 0")
        check(diversity_weight >= 0, "diversity_weight", diversity_weight, "at least 0")
        check(temperature > 0, "temperature", temperature, "positive")
        self.soft_weight, self.commitment_weight, self.codebook_weight = soft_weight, commitment_weight, codebook_weight
        self.entropy_weight, self.diversity_weight, self.temperature = entropy_weight, diversity_weight, temperature
        self.codebook = nn.Parameter(torch.randn(codebook_size, latent_dim))
        self.use = CodeUse(self, codebook_size)
        self.placement = Placement(start_from_data, revive_after)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by the code that is most aligned with it."""
        z = to_vectors(latents)
        self.placement(self.codebook, z.detach(), self.use.idle)
        indices = to_grid(most_aligned(z.detach(), self.codebook.detach()), latents)
        codes = look_up(self.codebook, indices)
        passed = codes
        if torch.is_grad_enabled():
            soft = expected_code(z, self.codebook).view(*indices.shape, -1).movedim(-1, -3)
            passed = codes + (soft - soft.detach())  # by exactly 0 more
        loss = self.soft_weight * F.mse_loss(passed, latents)
        loss = loss + self.commitment_weight * F.mse_loss(latents, codes.detach())
        loss = loss + self.codebook_weight * F.mse_loss(codes, latents.detach())
        metrics = {"perplexity": self.use.count(indices)}
        if self.training and self.entropy_weight > 0:
            of_each, of_mean = entropies(z, self.codebook, self.temperature)
            loss = loss + self.entropy_weight * (of_each - self.diversity_weight * of_mean)
            metrics |= {"sample_entropy": of_each.detach(), "batch_entropy": of_mean.detach()}
        return Quantized(passed, indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        return look_up(self.codebook, indices)

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        super().update()
        self.placement.update()
