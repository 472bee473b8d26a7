"""Along time: sums in closed form, every way of cutting a stream, and nothing that sees a later frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqgan.backbones.temporal import DoubleTime, HalveTime, Memory, TemporalConv


def whole_numbers(*shape: int, seed: int = 0) -> Tensor:
    """Small ones, whose sums are exact in whichever order they are added."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def exact(part: nn.Module) -> Any:
    for number, parameter in enumerate(part.parameters()):
        parameter.data.copy_(whole_numbers(*parameter.shape, seed=number))
    return part.requires_grad_(False)


def cuts(length: int, first: int, unit: int) -> Iterator[list[int]]:
    """Every way of cutting so many times into parts: the first of `first` + n·unit, those after it of n·unit."""
    places = range(first, length, unit)
    for count in range(len(places) + 1):
        for chosen in itertools.combinations(places, count):
            ends = [0, *chosen, length]
            yield [b - a for a, b in itertools.pairwise(ends)]


def test_a_convolution_along_time_is_its_sum() -> None:
    conv, x = exact(TemporalConv(2, 3, 1)), whole_numbers(1, 4, 2, 2, 2)
    taps = conv.weight.view(3, 3, 2)  # out, tap, in
    for t, tap in itertools.product(range(4), range(3)):
        assert tap in (0, 1, 2)
        past = [x[0, max(t - 2 + j, 0)] for j in range(3)]
        expected = sum(torch.einsum("oc,chw->ohw", taps[:, j], past[j]) for j in range(3)) + conv.bias[:, None, None]
        assert torch.equal(conv(x, None)[0, t], expected)


def test_half_the_rate_takes_every_second_frame_and_the_two_before() -> None:
    halve, x = exact(HalveTime(2)), whole_numbers(1, 5, 2, 2, 2)
    full = TemporalConv(2, 2, 1)
    full.load_state_dict(halve.conv.state_dict())
    assert torch.equal(halve(x, None), x[:, ::2] + full(x, None)[:, ::2])


def test_twice_the_rate_gives_two_for_one_and_the_first_alone() -> None:
    double, x = exact(DoubleTime(2)), whole_numbers(1, 3, 2, 2, 2)
    both = double.conv(x, None)
    found = double(x, None)
    assert found.shape[1] == 5
    for t in range(5):
        half, source = (1, t // 2) if t % 2 == 0 else (0, (t + 1) // 2)
        assert torch.equal(found[:, t], x[:, source] + both[:, source, 2 * half : 2 * half + 2])


@pytest.mark.parametrize(
    ("make", "length", "first", "unit"),
    [(lambda: TemporalConv(2, 3, 1), 6, 1, 1), (lambda: HalveTime(2), 9, 1, 2), (lambda: DoubleTime(2), 6, 1, 1)],
    ids=["convolution", "half the rate", "twice the rate"],
)
def test_however_a_stream_is_cut_it_is_the_same(
    make: Callable[[], nn.Module], length: int, first: int, unit: int
) -> None:
    part, x = exact(make()), whole_numbers(2, length, 2, 3, 3)
    expected = part(x, None)
    for sizes in cuts(length, first, unit):
        memory = Memory()
        found = torch.cat([part(piece, memory) for piece in x.split(sizes, 1)], 1)
        assert torch.equal(found, expected), sizes


def test_a_memory_keeps_a_frame_or_two_and_nothing_of_what_gave_them() -> None:
    for part, frames in ((TemporalConv(2, 2, 1), 2), (HalveTime(2).conv, 1), (DoubleTime(2).conv, 2)):
        memory = Memory()
        part(torch.zeros(1, 41, 2, 3, 3), memory)
        (kept,) = memory.last.values()
        assert kept.shape[1] == frames
        assert kept.untyped_storage().nbytes() == kept.nbytes
