"""What was decoded before, in memory that all reading processes share: a small corpus is decoded once."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import UInt8, UInt64

from vqgan.data.reading.shared import Shared

MEGABYTE = 2**20


class Decoded:
    """A place for the pixels of each of some items, empty at first.

    The memory is taken as it is filled. Reading processes share it; one that gets it in another way, by pickling,
    decodes for itself.

    Args:
        shapes: of the items.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int, int]]) -> None:
        self.shapes = shapes
        self.ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self.memory = Shared(-(-self.size // 8) * 8 + 8 * len(shapes))

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

    @property
    def pixels(self) -> UInt8[np.ndarray, "bytes"]:
        """Of all items."""
        return self.memory.bytes()[: self.size]

    @property
    def sums(self) -> UInt64[np.ndarray, "items"]:
        """A checksum of each."""
        return self.memory.bytes()[-8 * len(self.shapes) :].view(np.uint64)

    def take(
        self, number: int, decode: Callable[[], UInt8[np.ndarray, "time h w 3"]]
    ) -> UInt8[np.ndarray, "time h w 3"]:
        """Item `number`, decoded now if it has not been before; what `decode` raises is raised each time.

        Of an item two processes may write at once, and then the same; its checksum, which comes last, says whether all
        of it is there, whatever the order in which another processor sees the writes.
        """
        if sys.platform != "linux":  # elsewhere it would be a file
            return decode()
        shape = self.shapes[number]
        end = int(self.ends[number])
        place = self.pixels[end - int(np.prod(shape)) : end].reshape(shape)
        sums = self.sums
        if sums[number] != _checksum(place):
            made = decode()
            if made.shape != shape:  # of a file that is not what its header says: each time
                return made
            place[:] = made
            sums[number] = _checksum(place)
        return place


def _checksum(pixels: UInt8[np.ndarray, "time h w 3"]) -> int:
    return zlib.crc32(pixels.data) + 1  # 0 is that of nothing
