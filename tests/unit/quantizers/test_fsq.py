"""Finite scalar quantization, against its formulas written another way."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from vqgan.errors import InvalidValueError
from vqgan.quantizers import FiniteScalarQuantizer

PAPER = ([8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5])


def fsq(levels: list[int], symmetric: bool = False, gain: float = 1.0) -> FiniteScalarQuantizer:
    return FiniteScalarQuantizer(levels, symmetric, gain).eval()


def offset(levels: int) -> tuple[float, float, float]:
    """h, o and s of the published bounds."""
    h, o = (levels - 1) * 1.001 / 2, 0.0 if levels % 2 else 0.5
    return h, o, math.atanh(o / h)


def inverse(codes: torch.Tensor, levels: list[int], symmetric: bool, gain: float) -> torch.Tensor:
    """Latents that the bounds take to the middle of each code's cell, or to its bound where that is at infinity."""
    z = torch.empty_like(codes)
    for i, n in enumerate(levels):
        if symmetric:
            z[:, i] = torch.atanh(codes[:, i].clamp(-0.999, 0.999)) / gain
        else:
            h, o, s = offset(n)
            z[:, i] = (torch.atanh((codes[:, i] * (n // 2) + o) / h) - s) / gain
    return z


@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize(
    ("levels", "symmetric"),
    [*((levels, False) for levels in PAPER), ([4, 2, 3, 8], True), ([17, 17], True), ([8, 8, 8, 5, 5, 5], False)],
)
def test_every_code_comes_back_as_its_index(levels: list[int], symmetric: bool, gain: float) -> None:
    q = fsq(levels, symmetric, gain)
    assert (q.codebook_size, q.latent_dim, q.depth) == (math.prod(levels), len(levels), 1)
    indices = torch.arange(q.codebook_size).view(1, 1, -1)
    codes = q.lookup(indices)
    assert len(codes.flatten(2)[0].T.unique(dim=0)) == q.codebook_size
    output = q(inverse(codes, levels, symmetric, gain))
    assert torch.equal(output.indices, indices)
    assert torch.equal(output.latents, codes)


def test_the_first_digit_changes_fastest() -> None:
    q = fsq([3, 4, 5])
    digits = [(a - 1, (b - 2) / 2, (c - 2) / 2) for c, b, a in itertools.product(range(5), range(4), range(3))]
    assert q.lookup(torch.arange(60).view(1, 60))[:, 0].T.tolist() == [list(code) for code in digits]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [3, 4, 5, 8, 17, 100, 999, 1000])
def test_all_levels_are_reached_in_order_and_no_others(levels: int, symmetric: bool) -> None:
    z = torch.atanh(torch.linspace(-1, 1, 40 * levels + 1)).view(1, 1, 1, -1)  # from -∞ to ∞
    output = fsq([levels], symmetric)(z)
    assert output.indices.flatten().unique_consecutive().tolist() == list(range(levels))
    steps = output.latents.flatten().unique().diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 2 / (levels - 1) if symmetric else 1 / (levels // 2)))


def test_published_codes_of_even_levels_are_lopsided_and_symmetric_ones_are_not() -> None:
    indices = torch.arange(8).view(1, 8)
    assert float(fsq([8]).lookup(indices).mean()) == -0.125
    assert float(fsq([8]).lookup(indices).abs().min()) == 0
    symmetric = fsq([8], symmetric=True).lookup(indices)
    assert torch.equal(symmetric, -symmetric.flip(-1))
    assert (float(symmetric.max()), float(symmetric.abs().min())) == (1, pytest.approx(1 / 7))


@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_pass_the_rounding(symmetric: bool, gain: float) -> None:
    levels = [8, 5, 3]
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cotangent = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    fsq(levels, symmetric, gain)(z).latents.backward(cotangent)
    for i, n in enumerate(levels):
        h, _, s = offset(n)
        slope, shift = (1.0, 0.0) if symmetric else (h / (n // 2), s)
        expected = cotangent[:, i] * slope * gain / torch.cosh(gain * z.detach()[:, i] + shift).square()
        torch.testing.assert_close(z.grad[:, i], expected)


def test_ifsq_is_symmetric_with_a_gain() -> None:
    z = 3 * torch.randn(1, 2, 50, 50, generator=torch.Generator().manual_seed(0))
    theirs = (8 * (2 * torch.sigmoid(1.6 * z) - 1)).round() / 8
    assert torch.equal(fsq([17, 17], symmetric=True, gain=0.8)(z).latents, theirs)


def test_no_loss_and_nothing_but_the_count_of_use_is_saved() -> None:
    q = FiniteScalarQuantizer([8, 5, 5, 5], symmetric=False, gain=1.0)
    assert float(q(torch.randn(2, 4, 3, 3)).loss) == 0
    assert list(q.state_dict()) == ["idle"]
    assert list(FiniteScalarQuantizer([8] * 7, symmetric=False, gain=1.0).state_dict()) == []


@pytest.mark.parametrize(
    ("key", "levels", "symmetric", "gain"),
    [
        ("levels", [], False, 1.0), ("levels", [8, 2], False, 1.0), ("levels", [8, 1], True, 1.0),
        ("levels", [1001], False, 1.0), ("levels", [1000] * 7, True, 1.0),
        ("levels", [3] * 10**6, False, 1.0), ("gain", [8], False, 0.0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(key: str, levels: list[int], symmetric: bool, gain: float) -> None:
    with pytest.raises(InvalidValueError, match=key):
        FiniteScalarQuantizer(levels, symmetric, gain)
