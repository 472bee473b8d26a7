"""Codes that are spread as latents are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqgan.quantizers import RevivedQuantizer, WassersteinQuantizer
from vqgan.quantizers.wasserstein import inverse_root, wasserstein

PLAIN: dict[str, Any] = {
    "commitment_weight": 0.1, "codebook_weight": 1.0, "gradient": "straight_through", "start_from_data": False,
    "revive_after": None,
}  # fmt: skip


def make(codes: int = 16, **values: Any) -> WassersteinQuantizer:
    torch.manual_seed(0)
    return WassersteinQuantizer(codes, 4, **{**PLAIN, "matching_weight": 0.5, "moments_decay": 0.9, **values})


def latents(seed: int = 0, count: int = 2) -> Tensor:
    drawn = torch.randn(count, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
    return drawn * torch.tensor([0.1, 1, 2, 3]).view(4, 1, 1) + 5 * seed


def covariance(seed: int, dim: int = 6) -> Tensor:
    root = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.T


def by_eigenvalues(mean: Tensor, a: Tensor, moving: Tensor, b: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b @ root).sqrt().sum()
    return ((mean - moving).square().sum() + a.trace() + b.trace() - 2 * overlap).sqrt()


def test_the_distance_and_its_gradient_are_those_by_eigenvalues() -> None:
    means = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    b, moving = covariance(1).requires_grad_(), means[1].requires_grad_()
    ours, theirs = (f(means[0], covariance(0), moving, b) for f in (wasserstein, by_eigenvalues))
    torch.testing.assert_close(ours, theirs, rtol=5e-5, atol=0)
    for x, y in zip(*(torch.autograd.grad(d, (moving, b)) for d in (ours, theirs))):
        torch.testing.assert_close((x + x.T) / 2 if x.ndim == 2 else x, y, rtol=1e-3, atol=1e-4)


def test_of_independent_dimensions_it_is_the_distance_of_means_and_deviations() -> None:
    deviations = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.5, 1.0]])
    means = torch.tensor([[0.0, 1.0, 0.0], [3.0, 1.0, -1.0]])
    found = wasserstein(means[0], deviations[0].square().diag(), means[1], deviations[1].square().diag())
    expected = ((means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("same", [covariance(0), torch.zeros(6, 6), torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0]))])
def test_of_equal_distributions_it_is_0_with_a_finite_gradient(same: Tensor) -> None:
    same = same.float()
    moving_mean, moving = torch.ones(6).requires_grad_(), same.clone().requires_grad_()
    distance = wasserstein(torch.ones(6), same, moving_mean, moving)
    assert float(distance.detach()) <= 1e-3 * float(same.norm()) + 1e-6
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(distance, (moving_mean, moving)))


def test_inverse_roots() -> None:
    for seed in range(3):
        a = covariance(seed)
        root = inverse_root(a)
        torch.testing.assert_close(root @ a @ root, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("moved", [1, 2])
def test_codes_that_nearly_all_lie_on_one_point_have_a_distance(moved: int) -> None:
    """The only variances of such a codebook are of few directions, and far below the squares of what it holds."""
    for seed in range(30):
        q = make(1024)
        apart = torch.randn(1024, 4, generator=torch.Generator().manual_seed(seed)) * 1e-3
        apart[moved:] = 0
        for step in range(3):
            with torch.no_grad():
                q.codebook.copy_(torch.tensor([0.3, -0.2, 0.7, 0.1]) + apart)
            loss = q(latents(seed) if step else torch.full((2, 4, 5, 5), 100.0) + 1e-4 * latents(seed)).loss
            assert loss.isfinite()
            assert torch.autograd.grad(loss, q.codebook)[0].isfinite().all()
            q.update()
            assert torch.linalg.eigvalsh(q.covariance.double()).min() > -1e-7 * q.covariance.trace()


def test_the_gradient_moves_codes_alone() -> None:
    plain, q = RevivedQuantizer(16, 4, **PLAIN), make()
    q(latents(1))
    q.update()
    plain.load_state_dict({"codebook": q.codebook.detach()}, strict=False)
    z = latents(1).requires_grad_()
    ours, theirs = q(z), plain(z)
    slopes = [torch.autograd.grad(out.loss, (z, q_.codebook)) for out, q_ in ((ours, q), (theirs, plain))]
    assert torch.equal(slopes[0][0], slopes[1][0])
    unused = torch.ones(16, dtype=torch.bool)
    unused[ours.indices.unique()] = False
    assert unused.any()
    assert (slopes[0][1][unused].abs().max(1).values > 0).all()
    assert not slopes[1][1][unused].any()
    torch.testing.assert_close(ours.loss, theirs.loss + 0.5 * ours.metrics["matching"])


def test_the_moments_are_those_of_a_decaying_mixture_of_all_latents() -> None:
    q = make(moments_decay=0.7)
    assert float(q(latents(0)).metrics["matching"]) == 0.0, "nothing is known in the first step"
    q.step_mean.zero_(), q.step_products.zero_(), q.step_count.zero_()
    flat = [latents(seed).movedim(1, -1).reshape(-1, 4).double() for seed in range(4)]
    for seed in range(4):
        for part in latents(seed).split(1):
            q(part)
        q.update()
        weights = [0.7 ** (seed - k) for k in range(seed + 1)]
        weights = [w / sum(weights) for w in weights]
        mean = sum(w * x.mean(0) for w, x in zip(weights, flat))
        apart = [(x.mean(0) - mean).outer(x.mean(0) - mean) for x in flat]
        expected = sum(w * (x.T.cov() + between) for w, x, between in zip(weights, flat, apart))
        torch.testing.assert_close(q.mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(q.covariance.double(), expected, rtol=1e-4, atol=1e-4)


def test_steps_along_the_gradient_spread_codes_as_latents() -> None:
    q = make(codes=256, codebook_weight=0.0)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.05)
    first = last = 0.0
    for step in range(150):
        out = q(latents(1, count=8))
        first = float(out.metrics["matching"]) if step == 1 else first
        last = float(out.metrics["matching"])
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        q.update()
    assert last < 0.05 * first


def test_save_load_and_one_step_equal_never_having_stopped() -> None:
    q, loaded = make(), make()
    for step in range(3):
        q(latents(step))
        q.update()
    loaded.load_state_dict(q.state_dict())
    results = []
    for each in (q, loaded):
        results.append(each(latents(7)))
        each.update()
    assert torch.equal(results[0].loss, results[1].loss)
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), loaded.state_dict().values()))
