"""The scheduling of the process that runs the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def is_usual() -> bool:
    """Whether the calling thread has no real-time priority, as far as the system tells."""
    return not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER


@contextlib.contextmanager
def kept_usual() -> Iterator[None]:
    """Take back the real-time priority that SVT-AV1's encoder gives to its caller where it may, which is as root.

    Processes that are started then inherit it, and whatever waits in a loop in one of them, W&B's service for example,
    keeps all others from a core.
    """
    try:
        yield
    finally:
        if not is_usual():
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
