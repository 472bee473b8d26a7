"""Files of rows that a resumed run continues: `metrics.jsonl`, always written, and `advice.jsonl`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vqgan.files.writing import Rows
from vqgan.loggers.logger import Advice, Logger


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
