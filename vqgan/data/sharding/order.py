"""The order in which an epoch passes over the clips of many shards."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int


class WindowedOrder:
    """A permutation of clips that stays within a few shards for a while.

    The shards are permuted, and after that the clips of each `window` shards among themselves. So what is read at a
    time is near to each other, which disks, network file systems and caches reward, and no list of all clips is ever
    made. It is a function of the arguments alone.

    Args:
        ends: clips up to the end of each shard.
        window: shards whose clips are mixed.
        seed: of the run.
        epoch: number of the pass.
    """

    def __init__(self, ends: Int[np.ndarray, "shards"], window: int, seed: int, epoch: int) -> None:
        self.ends, self.window, self.key = ends, window, [seed, epoch, int(ends[-1])]
        self.starts = ends - np.diff(ends, prepend=0)
        self.shards = np.random.default_rng(self.key).permutation(len(ends))
        counts = (self.ends - self.starts)[self.shards]
        self.window_starts = np.cumsum([0, *np.add.reduceat(counts, np.arange(0, len(ends), window))])

    def __getitem__(self, position: int) -> int:
        """The clip at a position."""
        number = int(np.searchsorted(self.window_starts, position, side="right")) - 1
        return int(_clips(self, number)[position - self.window_starts[number]])

    def mixed(self, number: int) -> Int[np.ndarray, "clips"]:
        """The clips of a window, in order."""
        shards = self.shards[number * self.window : (number + 1) * self.window]
        clips = np.concatenate([np.arange(self.starts[shard], self.ends[shard]) for shard in shards])
        return np.random.default_rng([*self.key, number]).permutation(clips)


@functools.lru_cache(maxsize=4)
def _clips(order: WindowedOrder, number: int) -> Int[np.ndarray, "clips"]:
    return order.mixed(number)
