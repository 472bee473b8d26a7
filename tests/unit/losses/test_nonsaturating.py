"""The autoencoder's side of the non-saturating game, beside any game of the discriminator."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import Compose
from vqgan.config.build import build
from vqgan.losses import Game, Hinge, NonSaturating, Vanilla


def test_it_is_the_cross_entropy_of_being_real() -> None:
    fake = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    expected = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(NonSaturating(Vanilla()).generator(fake), expected)


def test_the_gradient_fades_where_it_convinces_and_not_where_it_loses() -> None:
    fake = torch.tensor([-100.0, 0.0, 100.0], requires_grad=True)
    (found,) = torch.autograd.grad(NonSaturating(Vanilla()).generator(fake), fake)
    torch.testing.assert_close(found, torch.tensor([-1 / 3, -1 / 6, 0.0]))


@pytest.mark.parametrize("game", [Hinge(), Vanilla()])
def test_the_discriminator_plays_the_game_that_is_named(game: Game) -> None:
    real, fake = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(1))
    found = NonSaturating(game)
    assert torch.equal(found.discriminator(real, fake), game.discriminator(real, fake))
    assert found.chance == game.chance
    assert float(found.discriminator(torch.zeros(3), torch.zeros(3))) == pytest.approx(found.chance)


def test_the_other_game_is_named_in_yaml(composed: Compose) -> None:
    config = composed("loss/adversarial=nonsaturating", "loss.adversarial.game._target_=vqgan.losses.Hinge")
    assert isinstance(build(config.loss, "loss", perceptual=None, terms={}).adversarial.game, Hinge)
