"""The game of the first generative adversarial networks."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vqgan.losses.game import Game


class Vanilla(Game):
    """½ (mean softplus(-D(x)) + mean softplus(D(x̂))): logistic regression (Goodfellow et al. 2014, arXiv:1406.2661)."""

    chance = math.log(2)  # ½ (ln 2 + ln 2)

    def discriminator(self, real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """Cross-entropy of real and fake."""
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
