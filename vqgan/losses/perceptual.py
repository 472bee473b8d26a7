"""What every perceptual network is: activations of a frozen network, and how far two frames' are apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from jaxtyping import Float
from torch import Tensor

from vqgan.frames import Frames
from vqgan.layers import Frozen


class Perceptual(Frozen, ABC):
    """A distance of frames by the activations of a frozen network, which terms of a loss can look at too."""

    @abstractmethod
    def activations(self, frames: Frames) -> Iterator[Tensor]:
        """What some layers say of frames in [-1, 1], from the first on: (batch·time, channels, rows, columns), float32.

        One by one, so that who compares them on the way need not keep them all.
        """

    @abstractmethod
    def compare(self, a: Iterable[Tensor], b: Iterable[Tensor]) -> Float[Tensor, "n"]:
        """The distance of each pair of frames, by their activations."""

    def forward(self, a: Frames, b: Frames) -> Float[Tensor, "batch time"]:
        """The distance of each pair of frames in [-1, 1]."""
        return self.compare(self.activations(a), self.activations(b)).unflatten(0, a.shape[:2])
