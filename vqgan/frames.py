"""The only border between video (uint8, what files hold) and frames (float, what networks see); what both are called.

Clips go through the whole house with their time. What works on pictures takes them by `per_frame`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Clips = UInt8[Tensor, "batch time height width rgb"]
Frames = Float[Tensor, "batch time rgb height width"]  # in [-1, 1]
Latents = Float[Tensor, "batch times latent rows columns"]  # times and sides as the backbone's downsampling leaves them
Indices = Int[Tensor, "batch times rows columns *depth"]  # `depth` where a position has several codes


def to_frames(clips: Clips) -> Frames:
    """Map clips to frames in [-1, 1], on the device that the clips are on: 0 is -1, 255 is 1."""
    return rearrange(clips, "b t h w c -> b t c h w").float() / 127.5 - 1.0


def to_clips(frames: Frames) -> Clips:
    """Map frames back to clips; values outside [-1, 1] are clamped."""
    levels = ((frames.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return rearrange(levels, "b t c h w -> b t h w c")


def per_frame(
    function: Callable[[Float[Tensor, "frames c height width"]], Tensor],
    clips: Float[Tensor, "batch time c height width"],
) -> Tensor:
    """Let a function of pictures work on each frame of clips: (batch·time, …) in, (batch, time, …) back."""
    # Flattened, a single frame would lose its memory format; a graph that is exported is of any number of clips.
    if not torch.compiler.is_exporting() and len(clips) == 1:
        return function(clips[0])[None]
    return function(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
