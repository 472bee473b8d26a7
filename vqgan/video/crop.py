"""From frames as read to a square clip."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from vqgan.errors import UnusableError

MIN_SIDE, MAX_ASPECT = 16, 16  # pixels of the shorter side, longer over shorter side


def check_size(width: float, height: float) -> None:
    """Raise `UnusableError` if a picture, as displayed, is too small or too long to be cropped from."""
    if min(width, height) < MIN_SIDE:
        raise UnusableError(f"too small: {width:.0f}×{height:.0f}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableError(f"too long a side: {width:.0f}×{height:.0f}")


def augment(
    frames: UInt8[np.ndarray, "time h w 3"], side: int, rng: np.random.Generator | None, random_crop: bool, flip: bool
) -> UInt8[np.ndarray, "time side side 3"]:
    """Crop a square and perhaps mirror it, the same for all frames of a clip.

    Args:
        frames: no side shorter than `side`.
        side: of the square, in pixels.
        rng: where the choices come from; None crops the centre and does not mirror.
        random_crop: crop anywhere instead of the centre.
        flip: mirror left and right every other time.
    """
    room = frames.shape[1] - side, frames.shape[2] - side
    top, left = room[0] // 2, room[1] // 2
    if rng is not None and random_crop:
        top, left = (int(rng.integers(r + 1)) for r in room)
    clip = frames[:, top : top + side, left : left + side]
    if rng is not None and flip and rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    return np.ascontiguousarray(clip)
