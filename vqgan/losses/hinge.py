"""The hinge game."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vqgan.losses.game import Game


class Hinge(Game):
    """½ (mean max(0, 1 - D(x)) + mean max(0, 1 + D(x̂))) (Lim and Ye 2017, arXiv:1705.02894)."""

    chance = 1.0  # ½ (1 + 1)

    def discriminator(self, real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """No gradient from what is beyond ±1 on its side."""
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
