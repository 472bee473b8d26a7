"""Both players' losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.networks import autoencoder, frames, loss
from vqgan.autoencoder import Autoencoder
from vqgan.discriminators import PatchGAN
from vqgan.losses import L1, L2, Adaptive, Hinge, Vanilla


def discriminator(norm: str = "batch") -> PatchGAN:
    torch.manual_seed(2)
    return PatchGAN(3, 8, 1, norm)


def textbook(network: Autoencoder, critic: PatchGAN, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Total and adaptive weight as the paper writes them: one backward per term, through everything."""
    output = network(x)
    nll = (x - output.reconstruction).abs().mean()
    g = -critic(output.reconstruction).mean()
    norms = [torch.autograd.grad(term, network.last_layer, retain_graph=True)[0].norm() for term in (nll, g)]
    balance = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach() * weight
    return nll + balance * g + output.quantization_loss, balance


def test_adaptive_weight_and_gradients_are_the_textbook_ones() -> None:
    network, critic, x = autoencoder(), discriminator("actnorm"), frames()[:, None]
    critic(x)  # ActNorm takes its start from this
    total, balance = textbook(network, critic, x, 0.8)
    expected = torch.autograd.grad(total, list(network.parameters()))
    ours = loss().autoencoder_loss(x, network(x), critic, network.last_layer, step=0)
    ours.total.backward()
    torch.testing.assert_close(ours.metrics["adversarial/weight"], balance, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.total, total, rtol=1e-5, atol=1e-6)
    for parameter, gradient in zip(network.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_no_player_leaves_a_gradient_on_the_other() -> None:
    network, critic, x = autoencoder(), discriminator(), frames()[:, None]
    output = network(x)
    loss().autoencoder_loss(x, output, critic, network.last_layer, 0).total.backward()
    assert all(p.grad is None for p in critic.parameters())
    network.zero_grad(set_to_none=True)
    loss().discriminator_loss(x, network(x).reconstruction, critic, 0).total.backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in critic.parameters())


@pytest.mark.parametrize(("start", "weight"), [(5, 0.8), (0, 0.0)])
def test_without_an_adversary_nothing_of_it_is_computed(start: int, weight: float) -> None:
    network, critic, x = autoencoder(), discriminator(), frames()[:, None]
    critic.forward = None  # type: ignore[assignment]  # a call would fail
    found = loss(discriminator_start=start, discriminator_weight=weight).autoencoder_loss(
        x, network(x), critic, network.last_layer, step=4
    )
    assert set(found.metrics) == {"train/pixel", "train/quantization"}


def test_the_adversary_comes_at_its_step() -> None:
    assert [loss(discriminator_start=3).is_adversarial(step) for step in range(5)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_pixel_distance(pixel: str) -> None:
    network, x = autoencoder(), frames()[:, None]
    output = network(x)
    found = (
        loss(pixel={"l1": L1, "l2": L2}[pixel](1.0))
        .autoencoder_loss(x, output, None, network.last_layer, 0)
        .metrics["train/pixel"]
    )
    distance = F.l1_loss if pixel == "l1" else F.mse_loss
    torch.testing.assert_close(found, distance(output.reconstruction, x).detach())


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_quantization_weight(weight: float) -> None:
    network, x = autoencoder(), frames()[:, None]
    output = network(x)
    found = loss(quantization_weight=weight).autoencoder_loss(x, output, None, network.last_layer, 0)
    expected = found.metrics["train/pixel"] + weight * output.quantization_loss
    torch.testing.assert_close(found.total, expected)


@pytest.mark.parametrize("kind", ["hinge", "vanilla"])
def test_discriminator_terms(kind: str) -> None:
    critic, x, y = discriminator("actnorm"), frames()[:, None], frames()[:, None].flip(0)
    critic(x)
    real, fake = critic(x), critic(y)
    found = loss(adversarial={"hinge": Hinge, "vanilla": Vanilla}[kind]()).discriminator_loss(x, y, critic, 0)
    if kind == "hinge":
        expected = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    else:
        ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
        bce = F.binary_cross_entropy_with_logits
        expected = 0.5 * (bce(real, ones) + bce(fake, zeros))
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.metrics["adversarial/logits_real"], real.mean().detach())


def test_the_clamp_of_the_adaptive_weight() -> None:
    network, critic, x = autoencoder(), discriminator(), frames()[:, None]
    found = loss(balance=Adaptive(1e-3)).autoencoder_loss(x, network(x), critic, network.last_layer, 0)
    assert float(found.metrics["adversarial/weight"]) == pytest.approx(0.8e-3)


def test_actnorm_whitens_its_first_batch_and_only_that() -> None:
    critic = discriminator("actnorm")
    norm = critic.main[3]
    x = torch.randn(64, 16, 4, 4) * 3 + 2
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(16), atol=1e-3, rtol=0)
    scale = norm.scale.clone()
    norm(x * 5)
    assert torch.equal(norm.scale, scale)
    fresh = discriminator("actnorm").eval().main[3]
    fresh(x)
    assert int(fresh.initialized) == 0
