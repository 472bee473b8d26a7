"""The Fréchet distance between two sets of features, of which only sums are kept."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Mean and covariance of features, in float64 on the CPU; memory depends on their dimension alone."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, features: Float[Tensor, "samples dim"]) -> None:
        """Take more samples."""
        x = features.cpu().double()
        self.count += len(x)
        self.sum += x.sum(0)
        self.products.addmm_(x.T, x)

    @property
    def mean(self) -> Float[Tensor, "dim"]:
        """Of at least one sample."""
        return self.sum / self.count

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """The unbiased estimate (n - 1), as NumPy's `cov`; of at least two samples."""
        return (self.products - torch.outer(self.sum, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2·(Σ_a Σ_b)^½), the squared 2-Wasserstein distance of two normal distributions.

    (Dowson and Landau 1982; as FID Heusel et al. 2017, arXiv:1706.08500.) The root of the product, which is not
    symmetric, is never taken: with Σ = F Fᵀ, the trace of it is the sum of the singular values of F_aᵀ F_b. That holds
    for any rank, so fewer samples than dimensions need no constant on the diagonal.
    """
    roots = torch.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance))
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * roots.sum()
    return max(0.0, float(distance))  # equal sets give some 1e-12 of either sign


def _factor(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim rank"]:
    """F with F Fᵀ = covariance, without the directions in which there is nothing but rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
