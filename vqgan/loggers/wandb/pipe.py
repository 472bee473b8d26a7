"""Talking to a process that may die or hang: neither may be noticed by the one who talks."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
from pathlib import Path


def pass_on(rows: queue.Queue[str | None], process: subprocess.Popen[bytes]) -> None:
    """Write rows to the process until None comes; a process that does not read stops this thread alone."""
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            while (row := rows.get()) is not None:
                pipe.write(row.encode() + b"\n")
                pipe.flush()
    except OSError:  # it died, which `log` notices by itself
        while rows.get() is not None:
            pass


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all below it: its service has a session of its own, and may be what hangs."""
    for pid in _below(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _below(pid: int) -> list[int]:
    """All processes below one, as far as the system tells (Linux)."""
    try:
        files = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []
    return [*children, *(member for child in children for member in _below(child))]
