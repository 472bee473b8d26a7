"""The discriminator of clips: it is the one of pictures where nothing moves along time, and sees what does."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from tests.support.clips import clips
from vqgan.discriminators import PatchGAN, PatchGAN3D


def with_pictures_weights(norm: Literal["batch", "actnorm"]) -> tuple[PatchGAN3D, PatchGAN]:
    """Both with the same weights: those of the middle of time, and nothing beside them."""
    ours, theirs = PatchGAN3D(3, 8, 2, norm), PatchGAN(3, 8, 2, norm)
    for a, b in zip(ours.main, theirs.main):
        if isinstance(a, nn.Conv3d):
            assert isinstance(b, nn.Conv2d)
            a.weight.data.zero_()
            a.weight.data[:, :, 1] = b.weight.data
            if a.bias is not None and b.bias is not None:
                a.bias.data.copy_(b.bias.data)
        elif list(b.parameters()):
            a.get_submodule("norm").load_state_dict(b.state_dict())
    return ours, theirs


@pytest.mark.parametrize("norm", ["batch", "actnorm"])
def test_of_pictures_it_is_the_one_of_pictures(norm: Literal["batch", "actnorm"]) -> None:
    ours, theirs = with_pictures_weights(norm)
    x = clips(1, batch=4, side=32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("times", "expected"), [(1, 1), (2, 1), (4, 1), (5, 2), (9, 3), (17, 5)])
def test_two_layers_halve_time(times: int, expected: int) -> None:
    assert PatchGAN3D(3, 8, 2, "batch")(clips(times, side=32)).shape == (1, expected, 1, 6, 6)
    assert PatchGAN3D(3, 8, 3, "actnorm")(clips(times, side=32)).shape == (1, expected, 1, 2, 2)


def test_it_sees_the_order_of_frames_and_learns_everywhere() -> None:
    critic = PatchGAN3D(3, 8, 2, "actnorm")
    x = clips(9, batch=2, side=32)
    logits = critic(x)
    assert not torch.allclose(logits.mean(), critic(x.flip(1)).mean(), atol=1e-7)
    logits.square().sum().backward()
    assert [name for name, p in critic.named_parameters() if p.grad is None or not p.grad.any()] == []
