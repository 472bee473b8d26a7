"""What reading one file may cost in time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from vqgan.errors import UnusableError, check


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What reading one file may cost.

    Args:
        seconds: of computing for one clip, or for looking into one file; what takes longer is unusable.
        megabytes: beyond what its process had before (on Linux, with `workers` above 0); two or more workers have half
            of it each, so that two bad files at the same time do not take twice as much.
        stall_seconds: workers that finish nothing for so long are ended and replaced.
    """

    seconds: float
    megabytes: int
    stall_seconds: float

    def __post_init__(self) -> None:
        check(self.seconds > 0, "seconds", self.seconds, "positive")
        check(self.megabytes > 0, "megabytes", self.megabytes, "positive")
        check(self.stall_seconds > 0, "stall_seconds", self.stall_seconds, "positive")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `UnusableError` after so many seconds of computing; only the main thread of a process can be timed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(_: int, __: FrameType | None) -> None:
        raise UnusableError(f"too slow: more than {seconds:g} seconds of computing")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def allocated() -> int:
    """Bytes that this process has asked for; 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def memory_limit(megabytes: int | None, before: int) -> Iterator[None]:
    """Let this process allocate so much more than it had `before`, and raise `MemoryError` beyond; None: any amount."""
    if megabytes is None or sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = before + megabytes * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
