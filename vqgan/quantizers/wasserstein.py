"""A codebook that learns to be spread as latents are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.errors import check
from vqgan.quantizers.assignment import to_vectors
from vqgan.quantizers.quantizer import Quantized
from vqgan.quantizers.revived import RevivedQuantizer
from vqgan.quantizers.rotation import Gradient
from vqgan.runtime.collectives import mean_over_processes, sum_over_processes

LEAST_VARIANCE = 1e-6  # of the sum of all, added to each: above what rounding makes of a variance of 0
ITERATIONS = 45  # of which each multiplies what is small by 9/4: enough for the least variance, squared


class WassersteinQuantizer(RevivedQuantizer):
    """`RevivedQuantizer` whose codes are pulled, all at once, to the mean and covariance of the latents.

    loss = VectorQuantizer's + matching_weight · W₂(N(μ_z, Σ_z), N(μ_e, Σ_e))      (Fang et al. 2025, arXiv:2506.15078)

    with W₂ of `wasserstein`; its gradient moves codes alone. μ_z and Σ_z are of the latents of the steps before, of all
    processes, a step's weight decaying by `moments_decay`; in the first step there are none, and no such loss. So it is
    the same for each micro-batch, and accumulation equals one large batch. The original has a queue of 65536 latents.

    Nearly all of 10^5 codes in use, published with 8 dimensions, codes that begin as N(0, 0.01), weights 1 (codebook),
    0.1 (commitment) and 0.5. Choose it for large codebooks of few dimensions.

    Args:
        codebook_size: number of codes, at least 2.
        latent_dim: dimension of a code.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
        matching_weight: at least 0.
        moments_decay: in [0, 1).
        gradient: how gradients pass to the latents, see `pass_gradient`.
        start_from_data: begin with codes drawn from the first batch's latents instead of near 0.
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
    """

    mean: Float[Tensor, "latent"]
    covariance: Float[Tensor, "latent latent"]
    moments_weight: Float[Tensor, ""]
    step_mean: Float[Tensor, "latent"]
    step_products: Float[Tensor, "latent latent"]
    step_count: Float[Tensor, ""]

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        codebook_weight: float,
        matching_weight: float,
        moments_decay: float,
        gradient: Gradient,
        start_from_data: bool,
        revive_after: int | None,
    ) -> None:
        super().__init__(
            codebook_size, latent_dim, commitment_weight, codebook_weight, gradient, start_from_data, revive_after
        )
        check(codebook_size > 1, "codebook_size", codebook_size, "at least 2")
        check(matching_weight >= 0, "matching_weight", matching_weight, "at least 0")
        check(0 <= moments_decay < 1, "moments_decay", moments_decay, "in [0, 1)")
        self.matching_weight, self.moments_decay = matching_weight, moments_decay
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("covariance", torch.zeros(latent_dim, latent_dim))
        self.register_buffer("moments_weight", torch.zeros(()))  # 1 - decay^steps; 0 for none yet
        # Of the step's latents: their mean, the products of what they differ by from it, their number. Zero between
        # steps.
        self.register_buffer("step_mean", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("step_products", torch.zeros(latent_dim, latent_dim), persistent=False)
        self.register_buffer("step_count", torch.zeros(()), persistent=False)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code; in training, sum what `update` needs."""
        quantized = super().forward(latents)
        if self.training:
            self._take_in(to_vectors(latents.detach()))
            distance = wasserstein(self.mean, self.covariance, *moments(_wide(self.codebook)))
            distance = distance * (self.moments_weight > 0)
            quantized.loss = quantized.loss + self.matching_weight * distance
            quantized.metrics["matching"] = distance.detach()
        return quantized

    @torch.no_grad()
    def update(self) -> None:
        """Take note that an optimizer step is over; the moments move by its latents."""
        super().update()
        mean = mean_over_processes(self.step_mean)
        apart = self.step_mean - mean
        products = sum_over_processes(self.step_products + self.step_count * apart.outer(apart))
        within, moved = products / (sum_over_processes(self.step_count) - 1).clamp(min=1), mean - self.mean
        # Corrected for having begun with nothing, as Adam's averages are: the first step counts in full.
        share = (1 - self.moments_decay) * (self.step_count > 0)
        self.moments_weight += share * (1 - self.moments_weight)
        share = share / self.moments_weight.clamp(min=1 - self.moments_decay)
        # Of a mixture, to whose covariance the distance of its parts' means belongs.
        self.covariance += share * (within - self.covariance) + share * (1 - share) * moved.outer(moved)
        self.mean += share * moved
        for of_step in (self.step_mean, self.step_products, self.step_count):
            of_step.zero_()

    @torch.no_grad()
    def _take_in(self, latents: Float[Tensor, "n latent"]) -> None:
        """Add to the moments of the step, by squares of small differences and not by a difference of large squares.

        Chan, Golub and LeVeque 1979: rounding must not make a covariance that has negative variances.
        """
        mean, products = scatter(_wide(latents))
        before, known = _wide(self.step_mean), _wide(self.step_count)
        apart, share = mean - before, len(latents) / (known + len(latents))
        self.step_products += (products + known * share * apart.outer(apart)).to(latents)
        self.step_mean += (share * apart).to(latents)
        self.step_count += len(latents)


def moments(vectors: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """The mean and the unbiased covariance."""
    mean, products = scatter(vectors)
    return mean, products / (len(vectors) - 1)


def scatter(vectors: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """The mean, and the sum of the products of what differs from it."""
    mean = vectors.mean(0)
    centered = vectors - mean
    return mean, centered.T @ centered


def wasserstein(
    mean: Float[Tensor, "d"],
    covariance: Float[Tensor, "d d"],
    moving_mean: Float[Tensor, "d"],
    moving_covariance: Float[Tensor, "d d"],
) -> Float[Tensor, ""]:
    """The 2-Wasserstein distance of two normal distributions; gradients reach the second one alone.

    W₂² = ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Lᵀ Σ_b L)^½),   Σ_a = L Lᵀ     (Dowson and Landau 1982)
    """
    apart = (_wide(mean.detach()) - _wide(moving_mean)).square().sum()
    a, b = _invertible(_wide(covariance.detach())), _invertible(_wide(moving_covariance))
    with torch.no_grad():
        # Not by eigenvalues: finding them makes the host wait for a GPU.
        factor = torch.linalg.cholesky_ex(a).L
        transport = factor @ inverse_root(factor.T @ b @ factor) @ factor.T
    # The root's trace is tr(T Σ_b), and T/2 its gradient: of a root no graph is needed.
    overlap = (transport * b).sum()
    overlap = (overlap + overlap.detach()) / 2
    squared = apart + a.trace() + b.trace() - 2 * overlap
    # Where both are alike, the root has no finite gradient.
    return squared.clamp(min=LEAST_VARIANCE**2).sqrt().to(mean)


def inverse_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A^-½ of a symmetric positive matrix, by the coupled Newton-Schulz iteration (Higham 2008, equation 6.35).

    Of eigenvalues below some 10^-15 of the largest it gives less than the root.
    """
    scale = matrix.norm().clamp(min=torch.finfo(matrix.dtype).tiny)
    y, z = matrix / scale, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    three = 3 * z
    for _ in range(ITERATIONS):
        step = (three - z @ y) / 2
        y, z = y @ step, step @ z
    return z / scale.sqrt()


def _invertible(covariance: Tensor) -> Tensor:
    return covariance + LEAST_VARIANCE * covariance.trace() * torch.eye(len(covariance)).to(covariance)


def _wide(x: Tensor) -> Tensor:
    """In float64, which Apple's GPUs do not have."""
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)
