"""What a token folder says of itself: its manifest, and a line per video; see `vqgan.tokens`."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int

from vqgan.config.build import check_values
from vqgan.errors import ConfigError, DataError
from vqgan.files.reading import load_json, read_json, read_lines
from vqgan.files.state import FileState

FORMAT = 2  # of the folder; in 1, lines did not say which file a video was, and each frame had codes, one a position
READ = (1, FORMAT)
MANIFEST = "manifest.json"
# What all videos of a token folder have in common.
COMMON = ("tokenizer", "codebook_size", "reading", "batch_frames", "precision")
LARGEST_CODEBOOK = 2**32
MOST_CODES = 2**10  # of a position
MOST_FRAMES = 2**10  # to a code
LARGEST_MANIFEST = 2**20  # bytes
LONGEST_LINE = 2**26  # bytes: the times of six million frames, should no two of them be equally far apart


def smallest_type(codebook_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every code."""
    return np.dtype(np.min_scalar_type(codebook_size - 1)).newbyteorder("<")


@dataclass(frozen=True)
class Record:
    """A line of a shard's list."""

    path: str
    offset: int  # of the first byte
    shape: tuple[int, ...]  # times, rows, columns, and depth where a position has several codes
    time_base: float
    times: str  # packed, see `pack_times`
    width: int
    height: int
    fps: float  # average, for people
    crc32: int  # of the bytes
    # By which the video is told from another one of its name; version 0.1 did not write them.
    file_bytes: int | None = None
    file_changed: int | None = None  # nanoseconds since 1970
    frames: int | None = None  # None: as many as there are times, as before frames could share a code

    @property
    def length(self) -> int:
        """How many frames the video has, as it was encoded."""
        return self.shape[0] if self.frames is None else self.frames

    @property
    def state(self) -> FileState | None:
        """Of the video's file when it was encoded; None if that was not written down."""
        return None if self.file_bytes is None or self.file_changed is None else (self.file_bytes, self.file_changed)

    def line(self) -> str:
        """As it is written."""
        return json.dumps(asdict(self)) + "\n"  # a name that is not UTF-8 becomes JSON's escapes


def pack_times(times: Int[np.ndarray, "frames"]) -> str:
    """Times as their differences, which repeat, compressed, in base 64."""
    return base64.b64encode(zlib.compress(np.diff(times, prepend=0).astype("<i8").tobytes())).decode()


def unpack_times(packed: str, count: int) -> Int[np.ndarray, "frames"]:
    """Take `count` times back.

    Raises:
        ValueError: it is something else.
    """
    inflated = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), 8 * count + 1)
    if len(inflated) != 8 * count:
        raise ValueError("the times are not those of the frames")
    return np.frombuffer(inflated, "<i8").cumsum()


def read_records(listed: Path) -> list[Record]:
    """The complete lines of a shard's list.

    Raises:
        DataError: one cannot be read.
    """
    try:
        return [_record(load_json(line.decode())) for line in complete_lines(listed)]
    except (ConfigError, ValueError, TypeError, LookupError, OverflowError, zlib.error) as error:
        raise DataError(
            f"{listed} is damaged ({str(error).rstrip('.')}). Copy it there again; or remove it and its .bin, and let "
            "vqgan encode write them anew."
        ) from None
    except OSError as error:
        raise DataError(f"{listed} cannot be read: {error.strerror or error}.") from None


def complete_lines(listed: Path) -> Iterator[bytes]:
    """Those of a shard's list: what stands after the last end of line is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no list.
    """
    return (line for line in read_lines(listed, LONGEST_LINE) if line.endswith(b"\n"))


def _record(values: dict[str, Any]) -> Record:
    """A line as a record, if it can be one: a folder of tokens may be a stranger's."""
    if not isinstance(values, dict):
        raise TypeError("a line is no object")
    check_values(Record, values, "")
    record = Record(**{**values, "shape": tuple(values["shape"])})
    path = PurePosixPath(record.path)
    if (
        len(record.shape) not in (3, 4)
        or min(*record.shape, record.offset + 1, record.width, record.height) < 1
        or not 0 < record.time_base < math.inf
    ):
        raise ValueError(f"the entry of {record.path!r} makes no sense")
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{record.path!r} is no path below a folder")
    if not record.shape[0] <= record.length <= MOST_FRAMES * record.shape[0]:
        raise ValueError(f"{record.path!r} has {record.shape[0]} times of codes for {record.length} frames")
    unpack_times(record.times, record.length)
    return record


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a token folder.

    Raises:
        ConfigError: there is none, or one of another format.
    """
    try:
        manifest = read_json(folder / MANIFEST, LARGEST_MANIFEST)
        if manifest["format"] not in READ:
            raise ValueError(f"format {manifest['format']} instead of {FORMAT}")
        if not 0 < int(manifest["codebook_size"]) <= LARGEST_CODEBOOK:
            raise ValueError(f"a codebook of {manifest['codebook_size']}")
        if not 0 < int(manifest.get("depth", 1)) <= MOST_CODES:
            raise ValueError(f"{manifest['depth']} codes a position")
        if not 0 < int(manifest.get("temporal_downsampling", 1)) <= MOST_FRAMES:
            raise ValueError(f"{manifest['temporal_downsampling']} frames to a code")
        return manifest
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{folder} is no folder of tokens written by vqgan encode ({error}).") from None
