"""Whether a file is the one that something was made of, or another one of its name."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from vqgan.errors import ConfigError

# The size of a file in bytes, and when it changed (nanoseconds since 1970).
FileState: TypeAlias = tuple[int, int]


def state_of(file: Path) -> FileState | None:
    """What `FileState` is of a file; None if it is not there."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def differing(
    before: Mapping[str, FileState | None], now: Mapping[str, FileState | None]
) -> tuple[list[str], list[str]]:
    """Names of the files that have another size now; and of those that have the same, but changed at another time.

    Of a file whose state is not known, before or now, nothing can be told.
    """
    known = [(name, old, new) for name, new in sorted(now.items()) if (old := before.get(name)) and new]
    others = [name for name, old, new in known if old[0] != new[0]]
    touched = [name for name, old, new in known if old[0] == new[0] and old[1] != new[1]]
    return others, touched


def refuse_others(out: Path, before: Mapping[str, FileState | None], now: Mapping[str, FileState | None]) -> None:
    """Refuse videos that are others than those of which `out` holds something under their names.

    What only has another time of change is a copy, most likely: that is told.

    Raises:
        ConfigError: one has another size.
    """
    others, touched = differing(before, now)
    if others:
        sizes = [state[others[0]] for state in (before, now)]
        old, new = (f"{state[0]:,}" for state in sizes if state is not None)
        more = f", and so it is with {len(others) - 1:,} more" if len(others) > 1 else ""
        raise ConfigError(
            f"{out} holds what was made of other videos than these: {others[0]} had {old} bytes then and has {new} "
            f"now{more}. Choose another --out; or, to have them done again in this one, first delete their lines from "
            "its shard-*.jsonl."
        )
    warn_of_touched(out, touched, "choose another --out")


def warn_of_touched(folder: Path, touched: Sequence[str], otherwise: str) -> None:
    """Say that files are taken for those that `folder` was made of, and what to do `otherwise`."""
    if touched:
        warnings.warn(
            f"{touched[0]}{f' and {len(touched) - 1:,} more' if len(touched) > 1 else ''} changed at another time than "
            f"what {folder} was made of, but the size is the same: taken for a copy. If it is not one, {otherwise}.",
            stacklevel=2,
        )
