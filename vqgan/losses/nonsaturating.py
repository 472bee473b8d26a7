"""The autoencoder's side that does not fade where it loses."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vqgan.losses.game import Game


class NonSaturating(Game):
    """The autoencoder minimises mean softplus(-D(x̂)); the discriminator plays another game.

    Its gradient -σ(-D(x̂)) is one where the discriminator is sure of a fake, and fades where it is taken in already, so
    that logits are not driven up without end as by -mean D(x̂) (Goodfellow et al. 2014, arXiv:1406.2661, section 3).

    With the vanilla game it is LlamaGen's `gen_adv_loss: non-saturating`; with the hinge game Open-MAGVIT2's and IBQ's
    (arXiv:2409.04410, 2412.02692), but that those average a frame's logits before the softplus, and here each patch
    counts for itself, as in the discriminator's games.

    Args:
        game: the discriminator's.
    """

    def __init__(self, game: Game) -> None:
        super().__init__()
        self.game, self.chance = game, game.chance

    def generator(self, fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """mean softplus(-D(x̂)) = -mean log σ(D(x̂))."""
        return F.softplus(-fake).mean()

    def discriminator(self, real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """That of the other game."""
        return self.game.discriminator(real, fake)
