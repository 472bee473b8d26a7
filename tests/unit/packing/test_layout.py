"""Codes become tokens and come back, whatever stands between them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vqgan.errors import InvalidValueError
from vqgan.packing import Layout
from vqgan.packing.layout import bases_of

SPECIAL = list(itertools.product([False, True], repeat=3))


def random_codes(size: int, *shape: int) -> np.ndarray:
    codes = np.random.default_rng(0).integers(size, size=shape)
    codes.flat[0], codes.flat[-1] = size - 1, 0
    return codes


def by_definition(codes: np.ndarray, bases: tuple[int, ...], special: tuple[bool, ...]) -> list[int]:
    """One code after the other, in plain words."""
    ids = itertools.count(max(bases))
    begin, frame_end, end = (next(ids) if asked else None for asked in special)
    tokens = [begin]
    for time in codes.reshape(len(codes), -1).tolist():
        for code in time:
            for base in bases:
                tokens.append(code % base)
                code //= base
        tokens.append(frame_end)
    return [token for token in [*tokens, end] if token is not None]


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize(("size", "depth", "bases"), [(300, 1, (300,)), (2**18, 1, (512, 512)), (35, 3, (5, 7))])
def test_tokens_are_as_defined_and_come_back(
    size: int, depth: int, bases: tuple[int, ...], special: tuple[bool, bool, bool]
) -> None:
    layout = Layout(size, depth, bases, *special)
    codes = random_codes(size, 4, 2, 3, *([depth] if depth > 1 else []))
    tokens = layout.write(codes, begins=True, ends=True)
    assert tokens.tolist() == by_definition(codes, bases, special)
    assert len(tokens) == layout.length(codes.shape, True, True)
    assert layout.vocabulary == max(bases) + sum(special)
    assert tokens.max() < layout.vocabulary
    np.testing.assert_array_equal(layout.read(tokens, 2, 3), codes)
    in_parts = [layout.write(codes[:1], True, False), layout.write(codes[1:3], False, False)]
    np.testing.assert_array_equal(np.concatenate([*in_parts, layout.write(codes[3:], False, True)]), tokens)


def test_special_tokens_have_the_ids_that_are_asked_for() -> None:
    layout = Layout(300, 1, (300,), True, 301, 70_000)
    assert layout.special == {"begin_of_video": 300, "end_of_frame": 301, "end_of_video": 70_000}
    assert layout.vocabulary == 70_001
    assert layout.dtype.str == "<u4"
    codes = random_codes(300, 2, 1, 2)
    (a, b), (c, d) = codes.reshape(2, 2).tolist()
    tokens = layout.write(codes, begins=True, ends=True)
    assert tokens.tolist() == [300, a, b, 301, c, d, 301, 70_000]
    assert len(tokens) == layout.length(codes.shape, True, True)
    np.testing.assert_array_equal(layout.read(tokens, 1, 2), codes)
    with pytest.raises(ValueError, match="a token of 302, which stands for nothing"):
        layout.read(np.array([302]), 1, 1)
    assert Layout(300, 1, (300,), True, 300, True).special == {
        "begin_of_video": 301, "end_of_frame": 300, "end_of_video": 302,
    }  # fmt: skip
    assert Layout(300, 1, (20, 20), False, False, 20).vocabulary == 21


@pytest.mark.parametrize(
    ("special", "said"),
    [
        ((299, False, True), r"begin_of_video must be true, false, or an id in \[300, 2147483646\].*, but is 299"),
        ((True, 0, True), "end_of_frame must be .* but is 0"),
        ((True, False, 2**31 - 1), "end_of_video must be .* but is 2147483647"),
        ((301, False, 301), "end_of_video must be another id than that of begin_of_video, but is 301"),
    ],
)
def test_ids_that_are_taken_are_refused(special: tuple[bool | int, bool | int, bool | int], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        Layout(300, 1, (300,), *special)


@pytest.mark.parametrize(("size", "expected"), [(65534, "<u2"), (65535, "<u4"), (2**18, "<u4")])
def test_two_bytes_hold_tokens_as_long_as_they_can(size: int, expected: str) -> None:
    layout = Layout(size, 1, (size,), True, False, True)
    assert layout.dtype.str == expected
    codes = np.full((1, 1, 1), size - 1)
    assert layout.write(codes, True, True).tolist() == [size, size - 1, size + 1]


def test_what_is_no_code_is_refused() -> None:
    layout = Layout(300, 1, (20, 20), True, True, True)
    with pytest.raises(ValueError, match="a code of 300 in a codebook of 300"):
        layout.write(np.full((1, 1, 1), 300), True, True)
    with pytest.raises(ValueError, match="a token of 23 in a vocabulary of 23"):
        layout.read(np.array([23]), 1, 1)
    with pytest.raises(ValueError, match="digits that name none of 300 codes"):
        layout.read(np.array([19, 19]), 1, 1)
    with pytest.raises(ValueError, match="digits that name none of 6 codes"):
        Layout(6, 1, (3, 2), False, False, False).read(np.array([0, 2]), 1, 1)


def test_a_last_time_that_a_model_did_not_end_is_left_out() -> None:
    layout = Layout(300, 1, (300,), True, True, True)
    assert layout.read(np.array([300, 1, 2, 301, 3]), 1, 2).tolist() == [[[1, 2]]]
    assert layout.read(np.array([], np.int64), 1, 2).shape == (0, 1, 2)


@pytest.mark.parametrize(
    ("quantizer", "size", "count", "expected"),
    [
        ({"class": "LookupFreeQuantizer"}, 2**18, 2, (2**9, 2**9)),
        ({"class": "LookupFreeQuantizer"}, 2**18, 18, (2,) * 18),
        ({"class": "VectorQuantizer"}, 1000, 1, (1000,)),
        ({"class": "VectorQuantizer"}, 1000, 3, (10, 10, 10)),
        ({"class": "VectorQuantizer"}, 1001, 3, (11, 11, 11)),
        ({"class": "VectorQuantizer"}, 262145, 2, (513, 513)),
        ({"class": "FSQ", "levels": [8, 8, 8, 5, 5, 5]}, 64000, 2, (512, 125)),
        ({"class": "Residual", "base": {"class": "FSQ", "levels": [8, 5, 5, 5]}}, 1000, 2, (40, 25)),
        ({"class": "FSQ", "levels": [8, 5, 5, 5]}, 1000, 4, (8, 5, 5, 5)),
        ({"levels": [3, "x"]}, 4, 2, (2, 2)),
    ],
)
def test_digits_are_what_a_code_is_made_of(
    quantizer: dict[str, object], size: int, count: int, expected: tuple[int, ...]
) -> None:
    assert bases_of(quantizer, size, count) == expected
    assert math.prod(expected) >= size


@pytest.mark.parametrize("levels", [[8, 8, 8, 5, 5, 5], [2, 3, 4, 5, 6, 7], [7, 2, 2, 2, 7]])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_groups_of_levels_are_as_even_as_can_be(levels: list[int], count: int) -> None:
    every = []
    for cuts in itertools.combinations(range(1, len(levels)), count - 1):
        edges = [0, *cuts, len(levels)]
        every.append(max(math.prod(levels[a:b]) for a, b in itertools.pairwise(edges)))
    assert max(bases_of({"levels": levels}, math.prod(levels), count)) == min(every)


@pytest.mark.parametrize(("quantizer", "size", "count"), [({}, 2**18, 19), ({"levels": [3, 5]}, 15, 3)])
def test_more_digits_than_there_are_is_refused(quantizer: dict[str, object], size: int, count: int) -> None:
    with pytest.raises(InvalidValueError, match=r"factors must be in \[1, \d+\] for this quantizer"):
        bases_of(quantizer, size, count)
