"""Memory that processes share, and whatever is handed over in it: large arrays are written once and copied never."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

LARGE = 2**12  # bytes from which an array is not part of the pickle
LINE = 64  # bytes: arrays begin at multiples of it
Bytes = UInt8[np.ndarray, "bytes"]


class Shared:
    """Bytes that all processes see to which it is handed; the system takes memory for those that are written to.

    A copy that is pickled in another way than by `dump` is an empty one.

    Args:
        size: bytes.
        file: its descriptor, if there is one already.
    """

    def __init__(self, size: int = 0, file: int | None = None) -> None:
        self.file = _file() if file is None else file
        weakref.finalize(self, os.close, self.file)
        if file is None:
            os.truncate(self.file, size)
        self.size = os.fstat(self.file).st_size
        self._bytes: Bytes = np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[type[Shared], tuple[int]]:
        return Shared, (self.size,)

    def bytes(self, size: int | None = None) -> Bytes:
        """All of them, and at least `size`: it grows. What was asked for before stays what it is."""
        size = self.size if size is None else size
        if len(self._bytes) < size:
            self.size = max(size, os.fstat(self.file).st_size)  # another process may have made it larger
            os.truncate(self.file, self.size)
            self._bytes = np.frombuffer(mmap.mmap(self.file, self.size), np.uint8)
        return self._bytes

    def private(self, size: int) -> Bytes:
        """The first ones, of which what is changed is changed in this process alone."""
        return np.frombuffer(mmap.mmap(self.file, size, access=mmap.ACCESS_COPY), np.uint8)


def dump(content: Any, shared: Shared, shares: list[Shared] | None = None) -> int:
    """Write an object to the memory; returns how many bytes it takes.

    Args:
        content: can be pickled.
        shared: the memory.
        shares: gets the `Shared` in it, whose files have to be sent as well; None where there are none.
    """
    stream, arrays = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, arrays, shares).dump(content)
    parts = [stream.getbuffer(), *(array.raw() for array in arrays)]
    sizes = np.array([len(parts), *(part.nbytes for part in parts)], np.int64)
    starts = _starts(sizes)
    whole = shared.bytes(int(starts[-1]))
    whole[: sizes.nbytes] = sizes.view(np.uint8)
    for part, start in zip(parts, starts.tolist()):
        whole[start : start + part.nbytes] = np.frombuffer(part, np.uint8)
    return int(starts[-1])


def load(whole: Bytes, shares: Sequence[Shared] = (), lent: list[weakref.ref[Any]] | None = None) -> Any:
    """The object that was written.

    Args:
        whole: the memory.
        shares: the `Shared` in it.
        lent: None copies all arrays. Else they lie where they are, and references to them are added to this list: the
            memory must be left alone until they are dead.
    """
    count = int(whole[:8].view(np.int64)[0])
    sizes = whole[: 8 * (count + 1)].view(np.int64)
    parts = [whole[start : start + size] for start, size in zip(_starts(sizes).tolist(), sizes[1:].tolist())]
    arrays = [part.copy() if lent is None else part for part in parts[1:]]
    if lent is not None:
        lent += map(weakref.ref, arrays)
    # Not the arrays themselves: what NumPy makes of them would refer to all of the memory instead.
    return _Unpickler(io.BytesIO(parts[0].data), shares, [array.data for array in arrays]).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, arrays: list[pickle.PickleBuffer], shares: list[Shared] | None) -> None:
        def is_kept(array: pickle.PickleBuffer) -> bool:
            if array.raw().nbytes >= LARGE:
                arrays.append(array)
            return array.raw().nbytes < LARGE

        super().__init__(stream, protocol=5, buffer_callback=is_kept)
        self.shares = shares

    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and not value.requires_grad:
            try:
                return torch.from_numpy, (value.numpy(),)
            except (TypeError, RuntimeError):  # a type that NumPy lacks
                return NotImplemented
        return NotImplemented

    def persistent_id(self, value: Any) -> int | None:
        if self.shares is None or not isinstance(value, Shared):
            return None
        self.shares.append(value)
        return len(self.shares) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, shares: Sequence[Shared], arrays: Sequence[memoryview]) -> None:
        super().__init__(stream, buffers=arrays)
        self.shares = shares

    def persistent_load(self, number: int) -> Shared:
        return self.shares[number]


def _starts(sizes: Int[np.ndarray, "parts_plus_one"]) -> Int[np.ndarray, "parts_plus_one"]:
    """Where each part starts that comes after the sizes, and the end of all."""
    return np.cumsum(-(-np.array([sizes.nbytes, *sizes[1:]]) // LINE) * LINE)


def _file() -> int:
    """An empty one without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):  # not in /dev/shm, of which containers have little
        return os.memfd_create("vqgan")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
