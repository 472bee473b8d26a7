"""Files of rows that a resumed run continues: `metrics.jsonl`, always written, and `advice.jsonl`."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vqgan.advice import Advice
from vqgan.errors import storing
from vqgan.loggers.logger import Logger


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


class JsonLines(Logger):
    """Appends a row `{"step", "time", every scalar}` per logged step, and `{"step", "name", "text"}` per advice.

    Time is in seconds since 1970.
    """

    def __init__(self, folder: Path) -> None:
        self.metrics, self.advice = Rows(folder / "metrics.jsonl"), Rows(folder / "advice.jsonl")

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:  # noqa: ARG002
        """Append one row."""
        self.metrics.append({"step": step, "time": round(time.time(), 3), **scalars})

    def advise(self, advice: Advice) -> None:
        """Append one row."""
        self.advice.append(asdict(advice))

    def state_dict(self) -> dict[str, Any]:
        """How long the files are."""
        return {"metrics": self.metrics.state_dict(), "advice": self.advice.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop rows that were written after the checkpoint."""
        self.metrics.load_state_dict(state.get("metrics", {}))
        self.advice.load_state_dict(state.get("advice", {}))
