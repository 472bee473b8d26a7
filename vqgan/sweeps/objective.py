"""What a sweep maximizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vqgan.errors import check
from vqgan.files.reading import number, read_rows


class Objective:
    """A scalar by its name in `metrics.jsonl`, or its negative.

    Args:
        name: as `validation/psnr`; with a minus before it, as `-validation/lpips`, of a scalar to be minimized.
    """

    def __init__(self, name: str) -> None:
        self.scalar = name.removeprefix("-")
        self.sign = -1.0 if name.startswith("-") else 1.0
        check("/" in self.scalar, "objective", name, "the name of a scalar, as validation/psnr or -validation/lpips")

    def of(self, step: int, row: Mapping[str, object]) -> float | None:
        """Its value in a row of metrics, the larger the better; None where it was not measured, or before training."""
        value = number(row.get(self.scalar))
        return None if value is None or step == 0 else self.sign * value

    def best(self, folder: Path) -> float | None:
        """The best value of a run, over all its evaluations; None if it was never measured."""
        values = (self.of(step, row) for row in read_rows(folder, "metrics.jsonl") if (step := row.get("step")))
        return max((value for value in values if value is not None), default=None)

    def text(self, value: float) -> str:
        """A value as it was measured, with its name."""
        return f"{self.scalar} {self.sign * value:.4g}"
