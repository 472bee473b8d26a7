"""What was decoded before, in memory that all reading processes share: a small corpus is decoded once."""

from __future__ import annotations

import math
import mmap
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

MEGABYTE = 2**20


class Decoded:
    """A place for the pixels of each of some items, empty at first.

    The memory is taken as it is filled. Processes that are forked share it; one that gets it in another way, by
    pickling, decodes for itself.

    Args:
        shapes: of the items.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int, int]]) -> None:
        self.shapes = shapes
        self.ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self._share()

    @classmethod
    def if_they_fit(cls, shapes: Iterable[tuple[int, int, int, int]], most: int) -> Decoded | None:
        """A place for some items if it takes at most so many bytes and there are any; only then are all asked for."""
        known, size = [], 0
        for shape in shapes:
            size += math.prod(shape)
            if size > most:
                return None
            known.append(shape)
        return cls(known) if known else None

    @property
    def size(self) -> int:
        """Bytes in which all fit."""
        return int(self.ends[-1])

    def take(
        self, number: int, decode: Callable[[], UInt8[np.ndarray, "time h w 3"]]
    ) -> UInt8[np.ndarray, "time h w 3"]:
        """Item `number`, decoded now if it has not been before; what `decode` raises is raised each time.

        Of an item two processes may write at once, and then the same; its checksum, which comes last, says whether all
        of it is there, whatever the order in which another processor sees the writes.
        """
        if self.pixels is None or self.sums is None:
            return decode()
        shape = self.shapes[number]
        end = int(self.ends[number])
        place = self.pixels[end - int(np.prod(shape)) : end].reshape(shape)
        if self.sums[number] != _checksum(place):
            made = decode()
            if made.shape != shape:  # of a file that is not what its header says: each time
                return made
            place[:] = made
            self.sums[number] = _checksum(place)
        return place

    def _share(self) -> None:
        self.pixels: UInt8[np.ndarray, "bytes"] | None = None
        self.sums: np.ndarray[Any, np.dtype[np.uint64]] | None = None
        if sys.platform == "linux":  # elsewhere processes are not forked
            self.pixels = np.frombuffer(mmap.mmap(-1, self.size), np.uint8)
            self.sums = np.frombuffer(mmap.mmap(-1, 8 * len(self.shapes)), np.uint64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "pixels": None, "sums": None}


def _checksum(pixels: UInt8[np.ndarray, "time h w 3"]) -> int:
    return zlib.crc32(pixels.data) + 1  # 0 is that of nothing
