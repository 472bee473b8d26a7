"""What the best run is, and the best checkpoint of one: what the key `objective` says, and nobody else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqgan.errors import InvalidValueError, check
from vqgan.files.reading import number, read_rows

# In names of scalars that are no objective; others are distances and losses.
HIGHER_IS_BETTER = re.compile("psnr|ssim|usage|perplexity|frames_per_second")


@dataclass(frozen=True)
class Criterion:
    """A scalar by its name in `metrics.jsonl`, or its negative. Of scores, which have that sign, the higher is better.

    Args:
        name: as `validation/psnr`; with a minus before it, as `-validation/lpips`, of a scalar to be minimized.
    """

    name: str

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and "/" in self.name
        check(is_name, "objective", self.name, "the name of a scalar, as validation/psnr or -validation/lpips")

    @property
    def scalar(self) -> str:
        """The name without its sign."""
        return self.name.removeprefix("-")

    @property
    def sign(self) -> float:
        """1 or -1; times it, a value is a score, and a score a value."""
        return -1.0 if self.name.startswith("-") else 1.0

    def is_higher_better(self, scalar: str) -> bool:
        """Whether larger values of a scalar are better ones: of the objective's own as it says, else by the name."""
        return self.sign > 0 if scalar == self.scalar else HIGHER_IS_BETTER.search(scalar) is not None

    def score(self, step: int, row: Mapping[str, object]) -> float | None:
        """The score of a row of metrics; None where the scalar was not measured, or before training."""
        value = number(row.get(self.scalar))
        return None if value is None or step == 0 else self.sign * value

    def best(self, folder: Path) -> float | None:
        """The best score of a run, over all its evaluations; None if it was never measured."""
        scores = (self.score(step, row) for row in read_rows(folder, "metrics.jsonl") if (step := row.get("step")))
        return max((score for score in scores if score is not None), default=None)

    def text(self, score: float) -> str:
        """A score as the value that was measured, with its name."""
        return f"{self.scalar} {self.sign * score:.4g}"


def scores_of(folder: Path, objectives: Sequence[Criterion]) -> list[float] | None:
    """A run's scores at the evaluation where the first objective's is the best; None if none has measured them all."""
    rows = [row for row in read_rows(folder, "metrics.jsonl") if row.get("step")]
    found = [[objective.score(row["step"], row) for objective in objectives] for row in rows]
    complete = [[score for score in scores if score is not None] for scores in found if None not in scores]
    return max(complete, key=lambda scores: scores[0], default=None)


PSNR = Criterion("validation/psnr")


def criterion_in(values: Mapping[str, object]) -> Criterion:
    """The objective in the values of a config, or in the manifest of a checkpoint.

    PSNR where there is none that can be read: it was the only one before manifests named theirs.
    """
    try:
        return Criterion(values.get("objective"))  # type: ignore[arg-type]  # it looks by itself
    except InvalidValueError:
        return PSNR
