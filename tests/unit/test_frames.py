"""The border between uint8 video and float frames."""

from __future__ import annotations

import torch

from vqgan.frames import to_clips, to_frames


def test_shape_range_and_order() -> None:
    clips = torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8)
    clips[1, 2, :, :, 0] = 255
    frames = to_frames(clips)
    assert frames.shape == (2, 3, 3, 4, 5)
    assert frames.dtype == torch.float32
    assert (float(frames.min()), float(frames.max())) == (-1.0, 1.0)
    assert torch.equal(frames[1, 2, 0], torch.ones(4, 5))
    assert float(frames.flatten(0, 1)[:5].max()) == -1.0


def test_every_level_comes_back() -> None:
    clips = torch.arange(256, dtype=torch.uint8).repeat(6).view(2, 1, 16, 16, 3)
    assert torch.equal(to_clips(to_frames(clips)), clips)


def test_values_out_of_range_are_clamped() -> None:
    frames = torch.tensor([-3.0, 3.0, 0.0]).view(1, 1, 3, 1, 1)
    assert to_clips(frames).flatten().tolist() == [0, 255, 128]
