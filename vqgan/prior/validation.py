"""What is measured of a prior at each evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vqgan.data.loader import spread
from vqgan.evaluation.bootstrap import entropy
from vqgan.prior.cost import codes_of_a_time, costs
from vqgan.prior.data import Place, Videos
from vqgan.prior.transformer import Transformer

BITS = "validation/bits_per_token"


@dataclass(frozen=True)
class Bits:
    """What was measured."""

    metrics: dict[str, float]


@dataclass(eq=False)
class PriorValidation:
    """Some runs of the held-out videos, evenly spread.

    Args:
        videos: held out.
        clip_times: of a run.
        most: at most so many runs.
        batch_size: of them at once.
    """

    videos: Videos
    clip_times: int
    most: int
    batch_size: int
    places: Sequence[Place] = field(init=False)

    def __post_init__(self) -> None:
        places = list(self.videos.places(self.clip_times))
        self.places = [places[n] for n in spread(len(places), self.most)]

    def measure(self, prior: Transformer) -> Bits:
        """The mean of the bits of a code."""
        found = costs(prior, self.videos, self.places, self.batch_size)
        total = sum(float(np.nansum(bits)) for bits in found.values())
        codes = sum(int(np.isfinite(b).sum()) * codes_of_a_time(self.videos, n) for n, b in found.items())
        return Bits({BITS: total / codes})

    @cached_property
    def order0(self) -> float:
        """The order-0 entropy of the codes that are measured, in bits, each of a position's by itself."""
        tokens = self.videos.tokens
        counts = np.zeros((tokens.depth, tokens.codebook_size), np.int64)
        for place in self.places:
            codes = self.videos.clips([place]).codes[0, place.counted :].reshape(-1, tokens.depth).numpy()
            counts += [np.bincount(of_one, minlength=tokens.codebook_size) for of_one in codes.T]
        return float(entropy(counts.T).mean())

    def show(self, network: Any, step: int, evaluation: Any) -> dict[str, Path]:  # noqa: ARG002
        """Nothing: continuations are pictures only with the tokenizer, see `vqgan sample`."""
        return {}

    def record(self, step: int, evaluation: Any) -> None:
        """Nothing: rows of metrics hold all."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing changes."""
