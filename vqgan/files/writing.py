"""Writing files so that they are whole, and saying what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from vqgan.errors import StorageError

ABANDONED = 3600  # seconds after which nobody is still writing a text: it was left by a kill


@contextlib.contextmanager
def storing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into a `StorageError` that names it, and the bytes if it is known.

    torch reports a full disk as a RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        if isinstance(error, FileNotFoundError) and not path.parent.exists():
            raise StorageError(f"{path} cannot be written: there is no folder {path.parent}.") from error
        need = "" if needed is None else f" It needs {needed:,} bytes, and"
        raise StorageError(
            f"{path} cannot be written: {reason}.{need} {_free(path)} Free some space, or choose another folder."
        ) from error


def _free(path: Path) -> str:
    """How many bytes are free where `path` is, or would be."""
    there = next((p for p in (path, *path.absolute().parents) if p.exists()), Path.cwd())
    return f"{shutil.disk_usage(there).free:,} bytes are free in {there}."


def replace_text(file: Path, text: str) -> None:
    """Write a file so that it is never there in part, whoever else writes it at the same time.

    Raises:
        StorageError: it cannot be written.
    """
    # A name that nobody else has: not another process, nor, in a folder from elsewhere, a link to another file.
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:16]}")
    with storing(file), _taking_the_place_of(file, aside):
        with aside.open("x", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())  # or the name could outlive a loss of power, and the text not
        _discard_abandoned(file, aside.stat().st_mtime - ABANDONED)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Where to write a file that is never there in part, and that no other process writes at the same time.

    Its name is always the same one, so what a kill has left goes with the next try.

    Raises:
        OSError: it cannot be written.
    """
    aside = file.with_name(f".{file.name}.part")
    aside.unlink(missing_ok=True)  # a link there, in a folder from elsewhere, would lead to another file
    with _taking_the_place_of(file, aside):
        yield aside


@contextlib.contextmanager
def _taking_the_place_of(file: Path, aside: Path) -> Iterator[Path]:
    try:
        yield aside
        aside.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _discard_abandoned(file: Path, before: float) -> None:
    """Remove what kills have left of `replace_text`, where it is older than `before` (seconds since 1970)."""
    left = re.compile(rf"\.{re.escape(file.name)}\.[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):  # another process may do the same; and whoever comes next tries again
        for other in file.parent.iterdir():
            if left.fullmatch(other.name) and other.lstat().st_mtime < before:
                other.unlink()


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of it: a file without a buffer may take less at once.

    Raises:
        OSError: it cannot be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]


class Rows:
    """A file with a row of JSON per line, which goes back with its run to a checkpoint."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row.

        Raises:
            StorageError: it cannot be written.
        """
        # A name that is not UTF-8 is written as JSON's own escapes.
        with storing(self.file), self.file.open("a", encoding="utf-8", errors="backslashreplace") as rows:
            rows.write(json.dumps(row, ensure_ascii=False) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """How long the file is, all of which is on the disk then: a checkpoint outlives no row that it counts.

        Raises:
            StorageError: it cannot be written.
        """
        if not self.file.exists():
            return {"bytes": 0}
        with storing(self.file), self.file.open("ab") as rows:
            os.fsync(rows.fileno())
            return {"bytes": rows.tell()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop rows that were written after the checkpoint: those steps come again. Without one, drop all.

        Rows that the checkpoint counts and the file lacks are lost, which is a warning; the next one begins a new line.
        """
        counted, length = state.get("bytes", 0), self.file.stat().st_size if self.file.exists() else 0
        if length < counted:
            warnings.warn(
                f"{self.file} has {length} bytes, and had {counted} when the checkpoint was saved: rows from before it "
                "are lost. Training goes on all the same.",
                stacklevel=2,
            )
        with storing(self.file):
            if length > counted:
                os.truncate(self.file, counted)
            elif 0 < length < counted:
                self._end_line()

    def _end_line(self) -> None:
        with self.file.open("rb+") as rows:
            rows.seek(-1, os.SEEK_END)
            if rows.read(1) != b"\n":
                rows.write(b"\n")
