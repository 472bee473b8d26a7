"""Numbers that lie beside a video, a row a frame: actions, states, labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vqgan.errors import DataError, UnusableError
from vqgan.files.reading import size_of
from vqgan.files.writing import storing, whole

FOLDER = "side"  # in a token folder
KINDS = "biuf"  # of NumPy's types: truth, whole numbers, fractions
Side = np.ndarray[Any, Any]  # (frames, …) numbers


def beside(video: Path) -> Path:
    """Where the numbers of a video are: NAME.npy beside NAME.mp4."""
    return video.with_suffix(".npy")


def read_beside(video: Path, frames: int, is_cut_off: bool) -> Side | None:
    """A row for each frame of a video, memory-mapped; None where there is no such file.

    Args:
        video: the file.
        frames: that it has.
        is_cut_off: whether its end is missing, so that there may be more rows.

    Raises:
        UnusableError: they do not fit its frames, or are no numbers.
    """
    file = beside(video)
    if not file.exists():
        return None
    try:
        rows = _mapped(file)
    except (OSError, ValueError, EOFError) as error:
        raise UnusableError(f"its side data {file.name} cannot be read: {error}") from None
    if len(rows) != frames and not (is_cut_off and len(rows) > frames):
        raise UnusableError(f"its side data {file.name} has {len(rows)} rows for {frames} frames")
    return rows


def path_of(folder: Path, path: str) -> Path:
    """Where in a token folder the numbers of the video at `path` are."""
    return folder / FOLDER / f"{path}.npy"


def write_side(folder: Path, path: str, rows: Side | None) -> None:
    """Write the rows of the frames that were encoded; None removes those of an earlier try.

    Raises:
        StorageError: they cannot be written.
    """
    file = path_of(folder, path)
    with storing(file):
        if rows is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as aside, aside.open("xb") as new:
            np.save(new, np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")), allow_pickle=False)
            new.flush()
            os.fsync(new.fileno())


def read_side(folder: Path, path: str, frames: int) -> Side | None:
    """The rows of a video of a token folder, memory-mapped; None where it has none.

    Raises:
        DataError: they are not those of its frames.
    """
    file = path_of(folder, path)
    if not file.exists():
        return None
    try:
        rows = _mapped(file)
        if len(rows) != frames:
            raise ValueError(f"{len(rows)} rows for {frames} frames")
        return rows
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} is not the side data of {path} ({error}). Encode that video again.") from None


def _mapped(file: Path) -> Side:
    size_of(file)
    rows = np.load(file, mmap_mode="r", allow_pickle=False)
    if not isinstance(rows, np.ndarray) or rows.ndim == 0 or rows.dtype.kind not in KINDS or rows.dtype.itemsize > 8:
        raise ValueError("it is no array of a row of numbers a frame")
    return rows
