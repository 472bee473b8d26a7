"""How heavy the adversary is, and from when on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Compose
from vqgan.autoencoder import AutoencoderOutput
from vqgan.config.moved import as_today
from vqgan.errors import ConfigError, InvalidValueError
from vqgan.losses import L1, Adaptive, Balance, Fixed, Hinge, Loss, VQGANLoss
from vqgan.quantizers import Quantized
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

LOSS: dict[str, Any] = {
    "pixel": L1(1.0), "perceptual": None, "perceptual_weight": 0.0, "perceptual_frames": None,
    "quantization_weight": 1.0, "adversarial": Hinge(),
    "balance": Adaptive(1e4), "discriminator_start": 0, "discriminator_weight": 0.8, "discriminator_warmup": 0,
    "discriminator_ramp": 0, "terms": {},
}  # fmt: skip


class Decoder(nn.Module):
    """Of one layer, which is the last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> AutoencoderOutput:
        nothing = torch.zeros(())
        quantized = Quantized(latents, torch.zeros(2, 1, 8, 8, dtype=torch.int64), nothing, {"perplexity": nothing})
        return AutoencoderOutput(self.layer(latents.flatten(0, 1))[:, None], quantized)


class Critic(nn.Module):
    """A logit per pixel; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.calls = nn.Conv2d(3, 1, 3), 0

    def forward(self, frames: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(frames.flatten(0, 1))[:, None]


def loss(**values: Any) -> VQGANLoss:
    return VQGANLoss(**{**LOSS, **values})


def latents() -> Tensor:
    return torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def frames() -> Tensor:
    return torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1


def judged(objective: VQGANLoss, step: int = 0) -> tuple[Loss, Tensor]:
    """The autoencoder's loss, and its gradient at the last layer."""
    decoder = Decoder()
    found = objective.autoencoder_loss(frames(), decoder(latents()), Critic(), decoder.layer.weight, step)
    return found, torch.autograd.grad(found.total, decoder.layer.weight)[0]


def by_hand(weight: float) -> Tensor:
    """The gradient at the last layer of the pixel distance and so much of -mean D(x̂), through everything at once."""
    decoder, critic = Decoder(), Critic()
    x = decoder(latents()).reconstruction
    total = (x - frames()).abs().mean() - weight * critic(x).mean()
    return torch.autograd.grad(total, decoder.layer.weight)[0]


def test_a_fixed_weight_is_the_weight() -> None:
    found, gradient = judged(loss(balance=Fixed(), discriminator_weight=0.3))
    torch.testing.assert_close(gradient, by_hand(0.3))
    assert float(found.metrics["adversarial/weight"]) == pytest.approx(0.3)
    assert loss(balance=Fixed()).largest_weight is None


def test_the_adaptive_weight_makes_both_pulls_equal() -> None:
    pixels = by_hand(0.0)
    adversary = by_hand(1.0) - pixels
    expected = 0.5 * pixels.norm() / (adversary.norm() + 1e-4)
    found, gradient = judged(loss(discriminator_weight=0.5))
    torch.testing.assert_close(found.metrics["adversarial/weight"], expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient, by_hand(float(expected)), rtol=1e-4, atol=1e-6)


def test_the_adaptive_weight_is_clamped() -> None:
    objective = loss(balance=Adaptive(1e-3), discriminator_weight=0.5)
    assert float(judged(objective)[0].metrics["adversarial/weight"]) == pytest.approx(0.5e-3)
    assert objective.largest_weight == pytest.approx(0.5e-3)
    with pytest.raises(InvalidValueError):
        Adaptive(0.0)


@pytest.mark.parametrize("balance", [Fixed(), Adaptive(1e4)])
def test_the_ramp_rises_to_the_whole_weight(balance: Balance) -> None:
    values = {"balance": balance, "discriminator_start": 3, "discriminator_warmup": 2}
    whole = judged(loss(**values), 9)[0].metrics["adversarial/weight"]
    objective = loss(**values, discriminator_ramp=4)
    shares = [
        float(found["adversarial/weight"] / whole) if "adversarial/weight" in found else 0.0
        for found in (judged(objective, step)[0].metrics for step in range(11))
    ]
    assert shares == pytest.approx([0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])


def test_without_a_ramp_and_a_warm_up_there_is_none() -> None:
    assert [loss(discriminator_start=3).ramp(step) for step in (3, 4, 100)] == [1.0, 1.0, 1.0]
    for key in ("discriminator_warmup", "discriminator_ramp"):
        with pytest.raises(InvalidValueError, match=key):
            loss(**{key: -1})


def test_while_it_warms_up_the_discriminator_alone_learns() -> None:
    objective = loss(discriminator_start=3, discriminator_warmup=2)
    assert [objective.trains_discriminator(step) for step in range(7)] == [False] * 3 + [True] * 4
    assert [objective.is_adversarial(step) for step in range(7)] == [False] * 5 + [True] * 2
    decoder, critic = Decoder(), Critic()
    found = objective.autoencoder_loss(frames(), decoder(latents()), critic, decoder.layer.weight, 4)
    assert critic.calls == 0, "nothing of the adversary is computed for the autoencoder"
    assert found.logits is None
    assert "train/adversarial" not in found.metrics
    reconstruction = decoder(latents()).reconstruction
    objective.discriminator_loss(frames(), reconstruction, critic, 4, logits=found.logits).total.backward()
    assert critic.layer.weight.grad is not None
    assert decoder.layer.weight.grad is None


def test_a_run_warms_its_discriminator_up(composed: Compose, tmp_path: Path) -> None:
    """The autoencoder is what it is without an adversary, until the warm-up is over."""

    def after(steps: int, *values: str) -> tuple[list[set[str]], list[Tensor], list[Tensor]]:
        (tmp_path / "run").mkdir(exist_ok=True)
        trainer = make_trainer(composed("trainer.discriminator_every=1", *values), tmp_path / "run")
        batches = trainer.loader.batches(0)
        assert trainer.discriminator is not None
        first = [p.detach().clone() for p in trainer.discriminator.parameters()]
        names = [set(trainer.step(step, [next(batches)]).metrics) for step in range(steps)]
        moved = [p.detach() - before for p, before in zip(trainer.discriminator.parameters(), first)]
        return names, [p.detach() for p in trainer.autoencoder.parameters()], moved

    _, without, unmoved = after(2, "loss.discriminator_start=9")
    names, warming, moved = after(2, "loss.discriminator_start=0", "loss.discriminator_warmup=2")
    assert all(torch.equal(a, b) for a, b in zip(without, warming))
    assert all("train/discriminator" in name and "train/adversarial" not in name for name in names)
    assert max(float(d.abs().max()) for d in unmoved) == 0
    assert max(float(d.abs().max()) for d in moved) > 0
    names, _, _ = after(3, "loss.discriminator_start=0", "loss.discriminator_warmup=2", "loss.discriminator_ramp=5")
    assert "train/adversarial" in names[2]


def test_older_configs_say_the_same() -> None:
    old = {"_target_": "vqgan.losses.VQGANLoss", "max_adaptive_weight": 5.0, "terms": {}, "pixel": {}}
    found = as_today({"backbone": {}, "model": {}, "loss": old})["loss"]
    assert found["balance"] == {"_target_": "vqgan.losses.Adaptive", "max_weight": 5.0}
    assert (found["discriminator_warmup"], found["discriminator_ramp"]) == (0, 0)
    assert "max_adaptive_weight" not in found
    assert as_today({"backbone": {}, "model": {}, "loss": found})["loss"] == found


def test_who_types_the_old_key_is_told_the_new_one(composed: Compose) -> None:
    with pytest.raises(ConfigError, match=r"loss\.max_adaptive_weight is now loss\.balance\.max_weight"):
        run(composed("+loss.max_adaptive_weight=5"))


@pytest.mark.parametrize("key", ["discriminator_warmup", "discriminator_ramp"])
def test_the_keys_are_named_in_a_complaint(composed: Compose, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.{key} must be at least 0, but is -1"):
        run(composed(f"loss.{key}=-1"))
