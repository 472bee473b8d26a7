"""A folder that a command fills, alone or as one of several processes, each of which holds its own part."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from vqgan.errors import RunFolderInUseError
from vqgan.files.writing import storing
from vqgan.runtime.process import Process


def hold(out: Path, rank: int) -> AcquireReturnProxy[FileLock]:
    """Make a folder, and hold the part of it that process `rank` writes; for a `with` statement.

    Raises:
        RunFolderInUseError: another process holds it.
        StorageError: the folder cannot be written to.
    """
    lock = FileLock(out / f".lock-{rank:03}")
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderInUseError(
                f"Another process writes to {out}. Wait for it, or choose another --out."
            ) from None


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A folder whose files take their places in `folder` when all of them are whole.

    Until then, and if anything goes wrong, what was there before stays as it was.

    Raises:
        OSError: it cannot be written to.
    """
    aside = folder / ".unfinished"
    shutil.rmtree(aside, ignore_errors=True)  # what a kill has left
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def looked_after(out: Path, process: Process) -> Iterator[int]:
    """The ranks whose shards this process puts in order: its own, and those that only an earlier start had.

    Each of the latter is held meanwhile; one that a process still holds is left out.
    """
    yield process.rank
    named = (re.match(r"\.?shard-(\d+)-", file.name) for file in out.iterdir())
    for rank in sorted({int(match[1]) for match in named if match}):
        if rank >= process.count and rank % process.count == process.rank:
            with contextlib.suppress(RunFolderInUseError), hold(out, rank):
                yield rank
