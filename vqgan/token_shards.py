"""Writing tokens so that a kill at any instant neither loses a finished video nor keeps part of one."""

from __future__ import annotations

import math
import os
import zlib
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from vqgan.errors import DataError, storing
from vqgan.token_records import Record, average_rate, pack_times, read_records


class ShardWriter:
    """Appends the codes of one video after the other to `<name>-00000.bin`, `<name>-00001.bin`, …

    A video's line is added to the shard's list when its bytes are on the disk. Shards that an earlier process left are
    cut back to their last complete video, and the newest is continued.

    Args:
        folder: of the tokens.
        name: of the shards; no other process writes to shards of that name.
        dtype: of the codes.
        largest: bytes beyond which a new shard is begun; a video is never divided.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], largest: int) -> None:
        self.folder, self.name, self.dtype, self.largest = folder, name, dtype, largest
        self.shard: FileIO | None = None
        self.end = 0  # of the last complete video
        self.crc32 = 0  # of the video that is being written
        self.shape = (0, 0, 0)
        ends = [repair(shard, dtype.itemsize) for shard in sorted(folder.glob(f"{name}-*.bin"))]
        self.number = max(0, len(ends) - 1 if ends and ends[-1] < largest else len(ends))

    def add(self, codes: UInt[np.ndarray, "frames rows columns"]) -> None:
        """Add frames to the video that is being written.

        Raises:
            StorageError: they cannot be written.
        """
        with storing(self._file):
            shard = self.shard or self._open()
            content = codes.astype(self.dtype, copy=False).tobytes()
            _write(shard, content)
        self.crc32 = zlib.crc32(content, self.crc32)
        self.shape = (self.shape[0] + len(codes), *codes.shape[1:])

    def finish(self, path: str, time_base: float, times: Int[np.ndarray, "frames"], width: int, height: int) -> None:
        """The video is complete: make it last.

        Raises:
            StorageError: that is not possible.
        """
        assert self.shard is not None
        fps = average_rate(time_base, times)
        record = Record(path, self.end, self.shape, time_base, pack_times(times), width, height, fps, self.crc32)
        with storing(self._file):
            os.fsync(self.shard.fileno())
            with FileIO(self._file.with_suffix(".jsonl"), "a") as listed:
                _write(listed, record.line().encode())
                os.fsync(listed.fileno())
            self.end = self.shard.tell()
            self._begin()
            if self.end >= self.largest:
                self.close()
                self.number += 1

    def give_up(self) -> None:
        """The video cannot be finished: take back what was written of it."""
        if self.shard is not None:
            with storing(self._file):
                self.shard.truncate(self.end)
                self.shard.seek(self.end)
        self._begin()

    def close(self) -> None:
        """Close the shard, with what is complete."""
        self.give_up()
        if self.shard is not None:
            self.shard.close()
        self.shard = None

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}-{self.number:05}.bin"

    def _open(self) -> FileIO:
        self.shard = FileIO(self._file, "a")
        self.end = self.shard.seek(0, os.SEEK_END)
        return self.shard

    def _begin(self) -> None:
        self.crc32, self.shape = 0, (0, 0, 0)


def repair(shard: Path, bytes_per_code: int) -> int:
    """Cut a shard back to its last complete video, and its list to its last complete line; returns the shard's size.

    Raises:
        DataError: it is shorter than its list says.
    """
    listed = shard.with_suffix(".jsonl")
    with storing(shard):
        listed.touch()
        os.truncate(listed, listed.read_bytes().rfind(b"\n") + 1)
        ends = [record.offset + math.prod(record.shape) * bytes_per_code for record in read_records(listed)]
        end = max(ends, default=0)
        if shard.stat().st_size < end:
            raise DataError(
                f"{shard} is cut off: its list says that it has {end} bytes. Remove both, and encode again."
            )
        os.truncate(shard, end)
    return end


def _write(file: FileIO, content: bytes) -> None:
    """All of it: a file without a buffer may take less at once."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]
