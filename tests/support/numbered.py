"""Clips that say which they are. In a module that is imported quickly: each reading process does so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqgan.data import ClipDataset
from vqgan.errors import UnusableError

CLIPS = 11


class Numbered(ClipDataset):
    """Clips of one grey pixel that is their number, and one of chance; some cannot be read."""

    def __init__(self, unusable: frozenset[int] = frozenset(), clips: int = CLIPS) -> None:
        self.unusable, self.clips = unusable, clips

    def __len__(self) -> int:
        return self.clips

    def path(self, index: int) -> Path:
        return Path(f"clip{index}")

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        if index in self.unusable:
            raise UnusableError("damaged")
        chance = 0 if rng is None else int(rng.integers(256))
        return torch.tensor([index, chance], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)
