"""The Fréchet distance against SciPy's matrix root, and against the eigenvalues of the product."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from vqgan.evaluation.frechet import Moments, frechet_distance


def features(count: int, dim: int, seed: int) -> Tensor:
    """Correlated features, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator) / dim**0.5
    return torch.randn(count, dim, generator=generator) @ mixing + torch.randn(dim, generator=generator)


def moments(x: Tensor, part: int = 7) -> Moments:
    found = Moments(x.shape[1])
    for some in x.split(part):
        found.add(some)
    return found


def by_root(a: Tensor, b: Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(root)))


def by_eigenvalues(a: Tensor, b: Tensor) -> float:
    """As torch-fidelity has it."""
    x, y = a.double().numpy(), b.double().numpy()
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * roots)


def test_sums_give_numpys_mean_and_covariance() -> None:
    x = features(50, 12, 0) + 100
    found = moments(x)
    np.testing.assert_allclose(found.mean, x.double().mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_it_equals_scipys(dim: int) -> None:
    a, b = features(200, dim, 1), features(150, dim, 2)
    if dim > 1:
        assert frechet_distance(moments(a), moments(b)) == pytest.approx(by_root(a, b), rel=1e-9)
        assert frechet_distance(moments(a), moments(b)) == pytest.approx(by_eigenvalues(a, b), rel=1e-9)
    else:
        exact = float((a.double().mean() - b.double().mean()) ** 2 + (a.double().std() - b.double().std()) ** 2)
        assert frechet_distance(moments(a), moments(b)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(10, 12), (10, 200), (2, 2)])
def test_fewer_samples_than_dimensions(n: int, m: int) -> None:
    """The eigenvalues of a product of low rank are rounded to some 1e-8, of which the others take the root."""
    a, b = features(n, 64, 3), features(m, 64, 4)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(by_eigenvalues(a, b), rel=1e-5)


def test_low_rank_to_the_last_digits() -> None:
    """In 64 dimensions, what lies in three of them has the distance that it has in those three."""
    a, b = features(100, 3, 5), features(80, 3, 6)
    turn = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(7)))[0][:3]
    inside = frechet_distance(moments(a.double() @ turn), moments(b.double() @ turn))
    assert inside == pytest.approx(frechet_distance(moments(a), moments(b)), rel=1e-9)


def test_equal_sets_have_distance_zero() -> None:
    x = features(20, 64, 8)
    assert frechet_distance(moments(x), moments(x, 20)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(moments(x), moments(x + 2)) == pytest.approx(4 * 64, rel=1e-5)
