"""Losses of clips: what changes in time, perception of some of the frames, steps that see pictures."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.support.clips import clip_tokenizer, clips
from tests.support.networks import loss
from vqgan.errors import InvalidValueError
from vqgan.frames import to_frames
from vqgan.losses import Temporal
from vqgan.measures import flicker


def levels(seed: int, times: int = 5) -> Tensor:
    return torch.randint(0, 256, (2, times, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_what_changes_wrongly_is_the_flicker_that_is_measured() -> None:
    originals, reconstructions = levels(0), levels(1)
    found = Temporal(0.5)(to_frames(originals), to_frames(reconstructions), 0)
    assert float(found) * 127.5 == pytest.approx(float(flicker(originals, reconstructions).mean()), rel=1e-5)
    by_hand = 0.0
    x, y = to_frames(originals), to_frames(reconstructions)
    for t in range(4):
        by_hand += float(((y[:, t + 1] - y[:, t]) - (x[:, t + 1] - x[:, t])).abs().mean()) / 4
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_an_error_that_stays_costs_nothing_and_neither_does_a_picture() -> None:
    x = to_frames(levels(0))
    assert float(Temporal(1.0)(x, x + 0.25, 0)) < 1e-6
    picture = x[:, :1].clone().requires_grad_()
    found = Temporal(1.0)(x[:, :1], picture * 0.5, 0)
    found.backward()
    assert float(found.detach()) == 0.0
    assert picture.grad is not None
    assert not picture.grad.any()


class Squares(nn.Module):
    """A perceptual distance that says how many frames it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.shown.append(a.shape[1])
        return (a - b).square().mean((2, 3, 4))


def gradients(frames_of_each: int | None, seed: int, times: int = 9) -> tuple[Tensor, Squares]:
    """Which frames of a reconstruction the perceptual term moves, in a loss that has no other."""
    perceptual, network = Squares(), clip_tokenizer()
    objective = loss(
        perceptual=perceptual, perceptual_weight=1.0, perceptual_frames=frames_of_each, discriminator_weight=0.0
    )
    objective.pixel.weight = 0.0
    x = clips(times, batch=2)
    output = network(x)
    output.reconstruction.retain_grad()
    torch.manual_seed(seed)
    objective.autoencoder_loss(x, output, None, network.last_layer, step=0).total.backward()
    assert output.reconstruction.grad is not None
    return output.reconstruction.grad.abs().sum((0, 2, 3, 4)), perceptual


def test_perception_looks_at_some_frames_drawn_by_the_seed_of_the_step() -> None:
    drawn = []
    for seed in range(6):
        moved, perceptual = gradients(3, seed)
        assert perceptual.shown == [3]
        assert int((moved > 0).sum()) == 3
        assert torch.equal(moved, gradients(3, seed)[0]), "a run that goes on looks at the same"
        drawn.append(tuple((moved > 0).nonzero().flatten().tolist()))
    assert len({*drawn}) > 3
    assert len({*itertools.chain(*drawn)}) > 5


@pytest.mark.parametrize(("asked", "times", "seen"), [(None, 5, 5), (9, 5, 5), (5, 5, 5), (2, 1, 1)])
def test_perception_looks_at_all_where_there_are_no_more(asked: int | None, times: int, seen: int) -> None:
    moved, perceptual = gradients(asked, 0, times)
    assert perceptual.shown == [seen]
    assert int((moved > 0).sum()) == times


def test_to_look_at_no_frame_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="perceptual_frames"):
        loss(perceptual_frames=0)
