"""Going on with less at once where memory runs out, which changes no code, but for ties."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from vqgan.backbones import Memory
from vqgan.runtime.device import is_out_of_memory

T = TypeVar("T")


class Room:
    """How many times of codes a network takes at once: all that it is given, and half as many when memory runs out."""

    def __init__(self) -> None:
        self.most: int | None = None

    def in_turn(self, times: int, memory: Memory, function: Callable[[int, int], T]) -> list[T]:
        """What a function gives for one part of a video after the other, of as many times as fit.

        Args:
            times: of all parts.
            memory: of the video, which is put back where a part has to be taken anew.
            function: of the first time of a part and the one behind its last.

        Raises:
            MemoryError, RuntimeError: a single time does not fit; and what else the function raises.
        """
        found, first = [], 0
        while first < times:
            last = min(times, first + (self.most or times))
            kept, taken = dict(memory.last), memory.taken
            try:
                found.append(function(first, last))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or last - first == 1:
                    raise
                memory.last, memory.taken = kept, taken
                if self.most is None:
                    warn_of_less()
                self.most = (last - first) // 2
            else:
                first = last
        return found


def warn_of_less() -> None:
    """Say that it goes on with less at once."""
    warnings.warn(
        "Memory ran out: it goes on with half as much at once, or less. That changes no code, but for ties.",
        stacklevel=4,
    )
