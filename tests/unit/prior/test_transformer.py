"""The network: what it costs by definition, what it may know, and that a cache changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.token_folders import write_tokens
from vqgan.errors import ConfigError
from vqgan.prior.cost import costs
from vqgan.prior.data import Place, Videos
from vqgan.prior.rotary import Rotation
from vqgan.prior.transformer import Alphabet, Cache, Transformer

ALPHABETS = [Alphabet(7, 1, 2, 3, 0), Alphabet(5, 3, 2, 3, 0), Alphabet(7, 1, 3, 3, 4)]


def network(alphabet: Alphabet, layers: int = 2) -> Transformer:
    """One whose every weight counts: what begins as nothing is random."""
    torch.manual_seed(0)
    made = Transformer(24, layers, 2, 32, 0.0, 100.0, alphabet, last_time=alphabet.rows == 2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def inputs(alphabet: Alphabet, batch: int = 2, times: int = 3) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, times, alphabet.rows, alphabet.columns, alphabet.depth)
    codes = torch.randint(alphabet.codebook_size, shape, generator=generator)
    side = torch.randn(batch, times, alphabet.numbers, generator=generator) if alphabet.numbers else None
    return codes, torch.arange(batch) == 0, side


def all_logits(made: Transformer, codes: Tensor, begins: Tensor, side: Tensor | None) -> Tensor:
    before = torch.nn.functional.pad(codes.flatten(1)[:, :-1], (1, 0))
    return made.logits(before, codes.shape[2], codes.shape[3], begins, side, 0, None)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_nats_are_those_of_a_log_softmax_in_numpy(alphabet: Alphabet) -> None:
    made = network(alphabet)
    codes, begins, side = inputs(alphabet)
    with torch.no_grad():
        logits = all_logits(made, codes, begins, side).double().numpy()
        found = made(codes, begins, side)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(shares, codes.flatten(1).numpy()[..., None], -1))[..., 0]
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_a_code_changes_what_comes_after_it_and_nothing_before(alphabet: Alphabet) -> None:
    made = network(alphabet)
    codes, begins, side = inputs(alphabet)
    with torch.no_grad():
        before = all_logits(made, codes, begins, side)
        for planted in range(codes[0].numel()):
            other = codes.clone()
            other.view(len(codes), -1)[0, planted] += 1
            other %= alphabet.codebook_size
            moved = (all_logits(made, other, begins, side) - before).abs().amax(-1)
            assert not moved[1].any(), "another clip"
            assert not moved[0, : planted + 1].any()
            assert (moved[0, planted + 1 :] > 0).all(), "each later slot sees it"


@pytest.mark.parametrize("alphabet", ALPHABETS[:2])
def test_the_code_at_its_place_a_time_before_is_told(alphabet: Alphabet) -> None:
    made = network(alphabet)
    for layer in made.layers:  # which add nothing: what is left is what each slot is told
        torch.nn.init.zeros_(layer.out.weight)
        torch.nn.init.zeros_(layer.down.weight)
    codes, begins, side = inputs(alphabet)
    a_time, slots = codes[0, 0].numel(), codes[0].numel()
    with torch.no_grad():
        before = all_logits(made, codes, begins, side)
        for planted in range(slots):
            other = codes.clone()
            other.view(len(codes), -1)[0, planted] += 1
            other %= alphabet.codebook_size
            moved = (all_logits(made, other, begins, side) - before).abs().amax(-1)[0].nonzero().flatten().tolist()
            assert moved == [slot for slot in (planted + 1, planted + a_time) if slot < slots]


def test_side_data_tell_of_their_own_time_and_those_before() -> None:
    made = network(ALPHABETS[2])
    codes, begins, side = inputs(ALPHABETS[2])
    assert side is not None
    other = side.clone()
    other[0, 1] += 1.0
    with torch.no_grad():
        moved = (made(codes, begins, other) - made(codes, begins, side)).abs().amax((2, 3, 4))
    assert not moved[1].any()
    assert (moved[0] > 0).tolist() == [False, True, True]


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_a_cache_changes_nothing(alphabet: Alphabet) -> None:
    made = network(alphabet)
    codes, begins, side = inputs(alphabet)
    flat, (rows, columns) = codes.flatten(1), codes.shape[2:4]
    prompt = codes[0, 0].numel()
    cache = Cache(2, flat.shape[1])
    with torch.no_grad():
        expected = all_logits(made, codes, begins, side)
        before = torch.nn.functional.pad(flat[:, :-1], (1, 0))
        found = [made.logits(before[:, :prompt], rows, columns, begins, side, 0, cache)]
        for slot in range(prompt, flat.shape[1]):
            found.append(made.logits(before[:, slot : slot + 1], rows, columns, begins, side, slot, cache))
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-4)


def test_attention_depends_on_how_far_apart_places_are() -> None:
    """A layer's score of two slots is the same wherever they are: in the middle of a row, or across its end."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 24), torch.randn(1, 1, 1, 24)

    def score(asked: list[int], told: list[int]) -> float:
        turned = Rotation(torch.tensor([asked]), 24, 100.0)(q) * Rotation(torch.tensor([told]), 24, 100.0)(k)
        return float(turned.sum())

    near = score([3, 2, 1], [3, 1, 1])
    assert score([9, 7, 5], [9, 6, 5]) == pytest.approx(near, abs=1e-5)
    assert all(abs(score([3, 2, 1], other) - near) > 1e-3 for other in ([2, 2, 1], [3, 2, 0], [3, 0, 1]))


def test_it_begins_with_all_codes_alike() -> None:
    made = Transformer(24, 2, 2, 32, 0.1, 100.0, ALPHABETS[1], last_time=True).eval()
    codes, begins, side = inputs(ALPHABETS[1])
    torch.testing.assert_close(made(codes, begins, side), torch.full(codes.shape, math.log(5)))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="heads must be such that each has an even number"):
        Transformer(20, 2, 3, 32, 0.1, 100.0, ALPHABETS[0], last_time=True)
    with pytest.raises(ConfigError, match=r"dropout must be in \[0, 1\)"):
        Transformer(24, 2, 2, 32, 1.0, 100.0, ALPHABETS[0], last_time=True)


def test_runs_cover_each_time_once_and_see_half_a_run_before(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", {"a.mp4": (11, 2, 3), "b.mp4": (2, 2, 3)}, size=7)
    videos = Videos(tokens, [0, 1], False)
    places = list(videos.places(4))
    counted = [(place.video, place.first + n) for place in places for n in range(place.counted, place.times)]
    assert counted == [*((0, n) for n in range(11)), (1, 0), (1, 1)]
    assert all(place.times <= 4 for place in places)
    assert all(place.counted == 2 for place in places if place.first > 0)

    made = network(Alphabet(7, 1, 2, 3, 0))
    whole, parts = (costs(made, videos, some, size) for some, size in ((places, 3), (list(videos.places(4)), 1)))
    for number in whole:
        np.testing.assert_allclose(whole[number], parts[number], rtol=1e-5)
    clips = videos.clips([Place(0, 2, 4, 2)])
    assert not clips.begins.any()
    with torch.no_grad():
        by_hand = made(clips.codes, clips.begins, None).sum((2, 3, 4))[0] / math.log(2)
    np.testing.assert_allclose(whole[0][4:6], by_hand[2:], rtol=1e-5)
