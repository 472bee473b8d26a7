"""What a person looks at: originals above, reconstructions below, as a picture and as a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vqgan.files.writing import storing, whole
from vqgan.video.writer import write_video

CLIP_FPS = 12
ROUNDS = 3  # that a clip makes there and back: a few frames are over too soon
LARGEST_VIDEO = 2**14  # pixels of a side, of h264
LARGEST_WEBP = 16383  # pixels of a side
WIDEST_FRAME = 256  # pixels, of a clip whose every frame is shown; larger ones are scaled down
QUALITY = 90  # of WebP
SCALE_UP_TO = 128  # pixels: smaller frames are enlarged by a whole factor, so that a person can see them


def write_pictures(
    folder: Path,
    step: int,
    originals: UInt8[Tensor, "batch time height width rgb"],
    reconstructions: UInt8[Tensor, "batch time height width rgb"],
) -> dict[str, Path]:
    """Write `step-….png` (the middle frame of each clip), and `step-….mp4` where clips have several frames.

    Returns:
        The files, under the names by which they are logged.

    Raises:
        StorageError: they cannot be written.
    """
    rows = _two_rows(originals, reconstructions)
    files = {"reconstructions/frames": folder / f"step-{step:08d}.png"}
    with storing(folder):
        folder.mkdir(exist_ok=True)
        _write_middle(files["reconstructions/frames"], rows)
        if len(rows) > 1:
            files["reconstructions/clips"] = folder / f"step-{step:08d}.mp4"
            lines = _in_lines(rows)
            there_and_back = np.concatenate([lines, lines[-2:0:-1]])
            with whole(files["reconstructions/clips"]) as file:
                write_video(file, _even(np.tile(there_and_back, (ROUNDS, 1, 1, 1))), CLIP_FPS)
    return files


def write_middle_frames(
    file: Path,
    originals: UInt8[Tensor, "batch time height width rgb"],
    reconstructions: UInt8[Tensor, "batch time height width rgb"],
) -> None:
    """Write a picture of the middle frame of each clip, laid out as those of `write_pictures`.

    Raises:
        StorageError: it cannot be written.
    """
    rows = _two_rows(originals, reconstructions)
    with storing(file):
        _write_middle(file, rows)


def write_moving(
    file: Path,
    original: UInt8[Tensor, "time height width rgb"],
    reconstruction: UInt8[Tensor, "time height width rgb"],
) -> None:
    """Write all frames of a clip from left to right, those of its reconstruction below, as WebP.

    Raises:
        StorageError: it cannot be written.
    """
    rows = rearrange([original, reconstruction], "row t h w c -> (row h) (t w) c").numpy()
    picture = Image.fromarray(rows)
    width = min(len(original) * WIDEST_FRAME, LARGEST_WEBP)
    if picture.width > width:
        picture = picture.resize((width, max(2, picture.height * width // picture.width // 2 * 2)))
    with storing(file), whole(file) as aside:
        picture.save(aside, "WEBP", quality=QUALITY, method=2)


def _write_middle(file: Path, rows: UInt8[np.ndarray, "time two_rows all_columns 3"]) -> None:
    with whole(file) as aside:
        Image.fromarray(rows[len(rows) // 2]).save(aside, "PNG")


def _two_rows(
    originals: UInt8[Tensor, "batch time height width rgb"],
    reconstructions: UInt8[Tensor, "batch time height width rgb"],
) -> UInt8[np.ndarray, "time two_rows all_columns 3"]:
    rows = rearrange([originals, reconstructions], "row b t h w c -> t (row h) (b w) c").numpy()
    factor = max(1, SCALE_UP_TO // originals.shape[2])
    return rows.repeat(factor, axis=1).repeat(factor, axis=2)


def _in_lines(
    rows: UInt8[np.ndarray, "time two_rows all_columns 3"],
) -> UInt8[np.ndarray, "time lines_of_two_rows columns 3"]:
    """In as many lines as a video's width asks for; of more pictures than it can hold, the first ones."""
    side = rows.shape[1] // 2
    count = rows.shape[2] // side
    lines = -(-count // max(1, LARGEST_VIDEO // side))
    in_a_line = -(-count // lines)
    lines = min(lines, max(1, LARGEST_VIDEO // (2 * side)))
    rows = rows[:, :, : lines * in_a_line * side]
    if missing := lines * in_a_line * side - rows.shape[2]:
        rows = np.pad(rows, ((0, 0), (0, 0), (0, missing), (0, 0)))
    return rearrange(rows, "t h (line w) c -> t (line h) w c", line=lines)


def _even(frames: UInt8[np.ndarray, "time h w 3"]) -> UInt8[np.ndarray, "time h2 w2 3"]:
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
