"""`metrics.jsonl`, always written: one row per logged step; `advice.jsonl`: one row per warning, if there is one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vqgan.advice import Advice
from vqgan.errors import storing
from vqgan.loggers.logger import Logger


class JsonLines(Logger):
    """Appends a row `{"step", "time", every scalar}` per logged step, and `{"step", "name", "text"}` per advice.

    Time is in seconds since 1970.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.advice_file = folder / "metrics.jsonl", folder / "advice.jsonl"

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:  # noqa: ARG002
        """Append one row."""
        _append(self.file, {"step": step, "time": round(time.time(), 3), **scalars})

    def advise(self, advice: Advice) -> None:
        """Append one row."""
        _append(self.advice_file, asdict(advice))

    def state_dict(self) -> dict[str, Any]:
        """How long the files are."""
        return {"bytes": _size(self.file), "advice_bytes": _size(self.advice_file)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop rows that were written after the checkpoint: those steps come again. Without one, drop all."""
        for file, length in ((self.file, state.get("bytes", 0)), (self.advice_file, state.get("advice_bytes", 0))):
            if _size(file) > length:
                with storing(file):
                    os.truncate(file, length)


def _append(file: Path, row: Mapping[str, Any]) -> None:
    with storing(file), file.open("a") as rows:
        rows.write(json.dumps(row) + "\n")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
