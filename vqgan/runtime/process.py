"""Which of several processes this one is, as `torchrun` says."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """One of `count` processes that do the same work on different parts of the data."""

    rank: int  # in [0, count)
    count: int
    local_rank: int  # on this machine

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks and writes for all."""
        return self.rank == 0


ALONE = Process(0, 1, 0)


def this_process() -> Process:
    """This process; without `torchrun` there is one."""
    rank, count, local = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Process(int(rank or 0), int(count or 1), int(local or 0))
