"""The rows logged last, and the run that they are of: all that `advice` looks at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

FEWEST = 3  # rows, whatever the cadence of logging, below which nothing has lasted
MOST_ROWS = 200  # kept; noise averages out over them, and a checkpoint holds them
SOME_STEPS = 100  # the patience of rules whose numbers hardly fluctuate, and do not depend on the adversary
LATER_EVALUATIONS = 3  # kept beside the best one
KEPT = (  # scalars that rules look at
    "train/pixel", "train/skipped_steps", "train/adversarial", "train/discriminator", "codebook/usage",
    "codebook/perplexity", "adversarial/weight", "adversarial/logits_real", "adversarial/logits_fake",
    "adversarial/lecam", "speed/data_wait", "speed/reading",
)  # fmt: skip
Row = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the rules need to know of a run.

    Args:
        on_cpu: its networks run where clips are read.
        codebook_size: codes.
        latents_per_step: latents that are quantized in one step.
        usage_steps: the window of `codebook/usage`.
        quantizer: the values of `model.quantizer` by their full keys: advice names only keys that there are.
        chance: the discriminator's loss where it tells nothing apart; None where that is not known.
        discriminator_start: steps before the adversary.
        discriminator_every: steps from one of the discriminator's to the next.
        discriminator_weight: of the adversarial term, beside the adaptive one.
        largest_weight: the clamp of the adversarial term's weight; None where there is none.
        lecam_weight: of the term `lecam`; None where there is none.
    """

    on_cpu: bool
    codebook_size: int
    latents_per_step: int
    usage_steps: int
    quantizer: Mapping[str, Any]
    chance: float | None
    discriminator_start: int
    discriminator_every: int
    discriminator_weight: float
    largest_weight: float | None
    lecam_weight: float | None

    @property
    def recovery_steps(self) -> int:
        """Steps that reconstructions are given to recover from the adversary: half of those before it, in [100, 2000].

        Short runs can be judged at all by the lower bound, long ones on their first day by the upper.
        """
        return min(max(self.discriminator_start // 2, SOME_STEPS), 2000)


@dataclass
class History:
    """Rows of metrics, the oldest first.

    Args:
        span: steps that it reaches back over.

    Attributes:
        rows: `step` and the scalars that rules look at, at most about 200 and evenly spread: of rows that are closer
            than that the newest is kept.
        evaluations: the best one by PSNR and the last three after it, each with `step`, `psnr` (dB) and `pixel`, the
            mean pixel distance in training then.
    """

    span: int
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, row: Row) -> None:
        """Take the row of a step, and forget what is further back than `span` steps."""
        if "train/skipped_steps" in row:
            if len(self.rows) > 1 and step - self.rows[-2]["step"] < self.span / MOST_ROWS:
                self.rows.pop()
            self.rows.append({"step": step, **{name: float(row[name]) for name in KEPT if name in row}})
            while len(self.rows) > FEWEST and self.rows[1]["step"] <= step - self.span:
                self.rows.pop(0)
        recent = [r["train/pixel"] for r in self.rows if "train/pixel" in r and r["step"] > step - SOME_STEPS]
        if "validation/psnr" in row and recent:
            pixel = fmean(recent)
            evaluations = [*self.evaluations, {"step": step, "psnr": float(row["validation/psnr"]), "pixel": pixel}]
            best = max(range(len(evaluations)), key=lambda n: evaluations[n]["psnr"])
            self.evaluations = [evaluations[best], *evaluations[best + 1 :][-LATER_EVALUATIONS:]]

    def last(self, steps: int, name: str) -> list[dict[str, float]]:
        """The rows of the last `steps` steps that have a number; none unless such rows go back so far."""
        rows = [row for row in self.rows if name in row]
        if len(rows) < FEWEST or rows[0]["step"] > rows[-1]["step"] - steps:
            return []
        within = [row for row in rows if row["step"] > rows[-1]["step"] - steps]
        return within if len(within) >= FEWEST else rows[-FEWEST:]

    def state_dict(self) -> dict[str, Any]:
        """All of it, as one text: a checkpoint's numbers are looked at one by one, and these are thousands."""
        return {"json": json.dumps({"rows": self.rows, "evaluations": self.evaluations})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        values = json.loads(state["json"])
        self.rows, self.evaluations = values["rows"], values["evaluations"]
