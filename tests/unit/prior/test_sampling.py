"""Drawing codes: the shares they have, what top-p leaves out, and that the cache changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.prior.test_transformer import ALPHABETS, inputs, network
from vqgan.config.build import build
from vqgan.config.command import command_config
from vqgan.errors import ConfigError
from vqgan.prior.sampling import Sampling, continued, drawn, numbers_for
from vqgan.prior.transformer import Alphabet


def sampling(*typed: str) -> Sampling:
    made: Sampling = build(command_config("sample", typed), "")
    return made


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (1.0, 0.01)])
def test_codes_are_drawn_by_their_shares(temperature: float, top_p: float) -> None:
    shares = np.array([0.1, 0.5, 0.05, 0.3, 0.05])
    expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
    order = np.argsort(-expected, kind="stable")
    kept = order[: 1 + int((expected[order].cumsum() < top_p - 1e-9).sum())]
    left = np.zeros(5)
    left[kept] = expected[kept] / expected[kept].sum()
    count = 20_000
    logits = torch.from_numpy(np.log(shares)).repeat(count, 1) + 3.0
    codes = drawn(logits, (np.arange(count) + 0.5) / count, sampling(f"temperature={temperature}", f"top_p={top_p}"))
    np.testing.assert_allclose(np.bincount(codes.numpy(), minlength=5) / count, left, atol=1e-3)


def test_a_number_just_below_one_draws_a_code_that_is_kept() -> None:
    codes = drawn(torch.zeros(1, 7), np.array([1 - 1e-17]), sampling("top_p=0.5"))
    assert int(codes) < 4


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("given", [0, 1, 2, 5])
def test_a_cache_draws_the_same_codes_also_beyond_the_window(alphabet: Alphabet, given: int) -> None:
    made = network(alphabet)
    codes, _, side = inputs(alphabet, times=7)
    numbers = numbers_for(0, [3, 8], codes[0].numel())
    with_cache, without = (
        continued(made, codes[:, :given], 7, 4, side, numbers, sampling(), cached) for cached in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert torch.equal(with_cache[:, :given], codes[:, :given])
    assert not torch.equal(with_cache, codes)
    alone = continued(made, codes[1:, :given], 7, 4, None if side is None else side[1:], numbers[1:], sampling())
    assert torch.equal(alone, with_cache[1:]), "a clip does not depend on those beside it"


def test_values_out_of_their_ranges_are_named() -> None:
    for typed, said in (
        ("temperature=0", "temperature must be positive"),
        ("top_p=0", r"top_p must be in \(0, 1\]"),
        ("prompt_times=8", r"prompt_times must be in \[0, times\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            sampling(typed)
