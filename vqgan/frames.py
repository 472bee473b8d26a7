"""The only border between video (uint8, what files hold) and frames (float, what networks see)."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor


def to_frames(clips: UInt8[Tensor, "batch time height width rgb"]) -> Float[Tensor, "frames rgb height width"]:
    """Map clips to frames in [-1, 1], on the device that the clips are on: 0 is -1, 255 is 1."""
    return rearrange(clips, "b t h w c -> (b t) c h w").float() / 127.5 - 1.0


def to_clips(
    frames: Float[Tensor, "frames rgb height width"], time: int
) -> UInt8[Tensor, "batch time height width rgb"]:
    """Map frames back to clips of `time` frames; values outside [-1, 1] are clamped."""
    levels = ((frames.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return rearrange(levels, "(b t) c h w -> b t h w c", t=time)
