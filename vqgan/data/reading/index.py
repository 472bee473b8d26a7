"""What was learned of files, kept between runs, so that a large tree is looked into once."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

COMMIT_EVERY = 2  # seconds: what an interruption may cost
SETTLED = 2  # seconds after its last change before a file is believed to be complete
PATIENCE = 30  # seconds for another process to finish writing
TABLE = """
create table if not exists files (
    kind text, path blob, size integer, changed integer, complaint text, content blob, primary key (kind, path)
) without rowid
"""


class Index:
    """A database of what is known of files, by path, size and time of change; several runs may share one.

    Use it in a `with` statement. If the database cannot be used there is one warning, and nothing is known.

    Args:
        file: `~` allowed; made at first use. None keeps nothing.
        kind: what is known of a file, with a version: what other versions knew is not used.
    """

    def __init__(self, file: str | None, kind: str) -> None:
        self.file, self.kind = file, kind
        self.connection: sqlite3.Connection | None = None
        self.states: dict[Path, tuple[int, int]] = {}
        self.rows: list[tuple[str, bytes, int, int, str | None, bytes]] = []
        self.committed = time.monotonic()

    def __enter__(self) -> Index:
        if self.file is not None:
            try:
                path = Path(self.file).expanduser()
                path.parent.mkdir(parents=True, exist_ok=True)
                self.connection = sqlite3.connect(path, timeout=PATIENCE)
                self.connection.execute(TABLE)
            except (OSError, sqlite3.Error) as error:
                self._give_up(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.connection is not None:
            self._commit()
        if self.connection is not None:
            self.connection.close()

    def look_up(self, paths: Iterable[Path]) -> dict[Path, tuple[str | None, bytes]]:
        """Complaint and content of those files that are known and have not changed since."""
        known: dict[Path, tuple[str | None, bytes]] = {}
        for path in paths:
            if self.connection is None:
                return {}
            try:
                state = path.stat()
                self.states[path] = state.st_size, state.st_mtime_ns
                row = self.connection.execute(
                    "select complaint, content from files where kind = ? and path = ? and size = ? and changed = ?",
                    (self.kind, _name(path), *self.states[path]),
                ).fetchone()
            except OSError:
                continue
            except sqlite3.Error as error:
                self._give_up(error)
                return {}
            if row is not None:
                known[path] = row
        return known

    def add(self, path: Path, complaint: str | None, content: bytes) -> None:
        """Keep what was learned of a file that was looked up before."""
        if self.connection is None or path not in self.states:
            return
        size, changed = self.states[path]
        if abs(time.time() - changed / 1e9) < SETTLED:  # it may change again within the same tick of the clock
            return
        self.rows.append((self.kind, _name(path), size, changed, complaint, content))
        if time.monotonic() - self.committed > COMMIT_EVERY:
            self._commit()

    def _commit(self) -> None:
        """Write all rows at once, so that others wait for milliseconds at most."""
        assert self.connection is not None
        try:
            with self.connection:
                self.connection.executemany("insert or replace into files values (?, ?, ?, ?, ?, ?)", self.rows)
        except sqlite3.Error as error:
            self._give_up(error)
        self.rows, self.committed = [], time.monotonic()

    def _give_up(self, error: Exception) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        warnings.warn(f"data.index={self.file} cannot be used ({error}): files are looked into anew.", stacklevel=3)


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())
