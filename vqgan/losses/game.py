"""What every adversarial game is: how logits become the two players' losses."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Game(nn.Module, ABC):
    """Both sides of a game over logits, high for real; float32.

    Attributes:
        chance: the discriminator's loss where frames and reconstructions get the same logits.
    """

    chance: float

    def generator(self, fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """What the autoencoder minimises: -mean D(x̂)."""
        return -fake.mean()

    @abstractmethod
    def discriminator(self, real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """What the discriminator minimises."""
