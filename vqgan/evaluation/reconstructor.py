"""Whatever makes other clips of clips, and can be measured beside a tokenizer of this project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.frames import Clips, Indices

Group = tuple[list[Path], Clips]  # clips of one size, and the video of each; those of a video follow one another


@dataclass(frozen=True)
class Reconstructed:
    """Some clips, and what was made of them.

    Args:
        paths: the video of each.
        originals: as they were read.
        clips: what was made of them, in 8 bits, as one would see it.
        indices: the codes of a tokenizer of this project; None of all else.
        bits: spent on each clip, where something counted them.
    """

    paths: list[Path]
    originals: Clips
    clips: Clips
    indices: Indices | None = None
    bits: Float[Tensor, "batch"] | None = None


class Reconstructor(ABC):
    """What is measured as tokenizers are, and is none of this project.

    `yardstick` is whether it is there for comparison alone.
    """

    yardstick = False

    @property
    def remarks(self) -> list[str]:
        """What whoever reads its figures should know, a sentence each; complete once it has done its work."""
        return []

    @property
    def curve(self) -> str | None:
        """What it is one of several points of; None if it stands for itself."""
        return None

    def identity(self) -> str | None:
        """A hash of what it is; None where that cannot be known."""
        return None

    @abstractmethod
    def reconstruct(self, groups: Iterable[Group], device: torch.device) -> Iterator[Reconstructed]:
        """What it makes of clips, in their order. It may take some more before it gives the first ones back.

        Raises:
            VQGANError: it cannot.
        """
