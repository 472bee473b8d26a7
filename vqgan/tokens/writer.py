"""Writing tokens so that a kill at any instant neither loses a finished video nor keeps part of one."""

from __future__ import annotations

import math
import os
import warnings
import zlib
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from vqgan.files.state import FileState
from vqgan.files.writing import replace_text, storing, write_all
from vqgan.text import counted
from vqgan.tokens.records import Record, complete_lines, pack_times, read_records
from vqgan.video.times import average_rate


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
        self.shape: tuple[int, ...] = (0, 0, 0)
        ends = [repair(shard, dtype.itemsize) for shard in sorted(folder.glob(f"{name}-*.bin"))]
        self.number = max(0, len(ends) - 1 if ends and ends[-1] < largest else len(ends))

    def add(self, codes: UInt[np.ndarray, "times rows columns *depth"]) -> None:
        """Add codes to the video that is being written.

        Raises:
            StorageError: they cannot be written.
        """
        with storing(self._file):
            shard = self.shard or self._open()
            content = codes.astype(self.dtype, copy=False).tobytes()
            write_all(shard, content)
        self.crc32 = zlib.crc32(content, self.crc32)
        self.shape = (self.shape[0] + len(codes), *codes.shape[1:])

    def finish(
        self,
        path: str,
        time_base: float,
        times: Int[np.ndarray, "frames"],
        width: int,
        height: int,
        state: FileState | None = None,
    ) -> None:
        """The video is complete: make it last.

        Raises:
            StorageError: that is not possible.
        """
        assert self.shard is not None
        fps = average_rate(time_base, times)
        packed, of_file = pack_times(times), state or (None, None)
        values = (path, self.end, self.shape, time_base, packed, width, height, fps, self.crc32, *of_file, len(times))
        record = Record(*values)
        with storing(self._file):
            os.fsync(self.shard.fileno())
            # Before the line: a signal or a full disk may end this anywhere, and what is listed must not be cut off.
            self.end = self.shard.tell()
            with FileIO(self._file.with_suffix(".jsonl"), "a") as listed:
                write_all(listed, record.line().encode())
                os.fsync(listed.fileno())
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
        if self.shard is not None and not self.shard.closed:  # it is, where a signal came just before the last line
            self.give_up()
            self.shard.close()
        self.shard = None

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}-{self.number:05}.bin"

    def _open(self) -> FileIO:
        # The end first, or a signal could have the shard cut back to the end of another one.
        self.end = self._file.stat().st_size if self._file.exists() else 0
        self.shard = FileIO(self._file, "a")
        return self.shard

    def _begin(self) -> None:
        self.crc32, self.shape = 0, (0, 0, 0)


def repair(shard: Path, bytes_per_code: int) -> int:
    """Cut a shard back to its last complete video; returns its size then.

    Its list loses what is no complete line, and the lines of codes that the shard does not hold: it was cut off, and
    those videos are to be encoded again, which is told.

    Raises:
        DataError: the list is damaged.
        StorageError: one of them cannot be written to.
    """
    listed = shard.with_suffix(".jsonl")
    with storing(shard):
        shard.touch()
        listed.touch()
        size, records = shard.stat().st_size, read_records(listed)
        os.truncate(listed, sum(map(len, complete_lines(listed))))
        ends = [record.offset + math.prod(record.shape) * bytes_per_code for record in records]
        lost = [record.path for record, end in zip(records, ends) if end > size]
        if lost:
            lines = zip(complete_lines(listed), ends)
            replace_text(listed, "".join(line.decode() for line, end in lines if end <= size))
            warnings.warn(
                f"{shard} is cut off: it lacks {counted(len(lost), 'video')} of its list (the first: {lost[0]}), which "
                "must be encoded again.",
                stacklevel=2,
            )
        end = max((end for end in ends if end <= size), default=0)
        os.truncate(shard, end)
    return end
