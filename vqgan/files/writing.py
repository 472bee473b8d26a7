"""Writing files so that they are whole, and saying what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vqgan.errors import StorageError


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
    try:
        with storing(file):
            with aside.open("x", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())  # or the name could outlive a loss of power, and the text not
            aside.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


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
