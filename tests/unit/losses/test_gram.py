"""The distance of textures, and that it looks through the network that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import Compose
from vqgan.errors import ConfigError, InvalidValueError
from vqgan.losses import LPIPS, Gram
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer


def activations(seed: int, channels: tuple[int, ...] = (3, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, c, 4, 6, generator=generator) for c in channels]


def by_hand(a: list[Tensor], b: list[Tensor], weights: list[float]) -> float:
    """Each entry of each matrix on its own, in float64."""
    total = 0.0
    for weight, x, y in zip(weights, a, b):
        n, c, h, w = x.shape
        for frame in range(n):
            for i in range(c):
                for j in range(c):
                    g, k = (float((z[frame, i].double() * z[frame, j].double()).sum()) / (h * w) for z in (x, y))
                    total += weight * (g - k) ** 2 / (n * c * c)
    return total


def test_it_is_the_formula() -> None:
    a, b = activations(0), activations(1)
    found = Gram(1.0, [0.5, 3.0])(a, b, 0)
    assert float(found) == pytest.approx(by_hand(a, b, [0.5, 3.0]), rel=1e-5)


def test_a_texture_is_the_same_wherever_it_lies() -> None:
    a, b = activations(0), activations(0)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    moved = [x.flatten(2)[..., order].view_as(x) for x in b]
    assert float(Gram(1.0, [1.0, 1.0])(a, moved, 0)) == pytest.approx(0.0, abs=1e-12)
    assert float(Gram(1.0, [1.0, 1.0])(a, activations(1), 0)) > 1e-3


def test_it_is_float32_whatever_the_networks_are() -> None:
    term, a, b = Gram(1.0, [1.0, 1.0]), activations(0), activations(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = term(a, b, 0)
    assert torch.equal(found, term(a, b, 0))


def test_weights_of_layers_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="layer_weights"):
        Gram(1.0, [1.0, -1.0])
    with pytest.raises(InvalidValueError, match="one for each of 2 layers"):
        Gram(1.0, [1.0])(activations(0), activations(1), 0)


def trainer_of(composed: Compose, tmp_path: Path, *values: str) -> Trainer:
    (tmp_path / "run").mkdir(exist_ok=True)
    return make_trainer(composed("loss.discriminator_start=9", *values), tmp_path / "run")


def stepped(trainer: Trainer) -> tuple[dict[str, Tensor], int]:
    """The metrics of a step, and how often the perceptual network ran."""
    calls: list[None] = []
    assert isinstance(trainer.loss.perceptual, LPIPS)
    handle = trainer.loss.perceptual.features[0].register_forward_hook(lambda *_: calls.append(None))
    metrics = trainer.step(0, [next(trainer.loader.batches(0))]).metrics
    handle.remove()
    return metrics, len(calls)


def test_the_perceptual_network_runs_once_for_all_that_look_through_it(
    composed: Compose, tmp_path: Path, vgg16_weights: Path
) -> None:
    values = ("loss=vqgan", f"loss.perceptual.weights={vgg16_weights}")
    without, calls = stepped(trainer_of(composed, tmp_path, *values))
    assert calls == 2  # on frames and on reconstructions
    trainer = trainer_of(composed, tmp_path, *values, "loss/terms=gram", "loss.terms.gram.weight=2")
    found, calls = stepped(trainer)
    assert calls == 2
    assert torch.equal(found["train/perceptual"], without["train/perceptual"])
    torch.testing.assert_close(found["train/total"], without["train/total"] + 2 * found["train/gram"])
    assert float(found["train/gram"]) > 0
    assert not trainer.loss.state_dict(), "a network from a file is in no checkpoint"
    assert sum(isinstance(module, LPIPS) for module in trainer.loss.modules()) == 1


def test_the_autoencoder_learns_from_it(composed: Compose, tmp_path: Path, vgg16_weights: Path) -> None:
    values = (
        "loss=no_perceptual",
        f"loss.perceptual.weights={vgg16_weights}",
        "loss/terms=gram",
        "loss.pixel.weight=0",
    )
    trainer = trainer_of(composed, tmp_path, *values, "loss.quantization_weight=0", "trainer.clip_gradients=null")
    trainer.autoencoder.last_layer.register_post_accumulate_grad_hook(lambda p: norms.append(float(p.grad.norm())))
    norms: list[float] = []
    metrics, calls = stepped(trainer)
    assert calls == 2, "the network is there for the term alone"
    assert "train/perceptual" not in metrics
    assert norms[0] > 0


def test_without_a_perceptual_network_it_cannot_be(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.perceptual must be a network with activations for loss\.terms"):
        trainer_of(composed, tmp_path, "loss=vqgan", "loss.perceptual=null", "loss/terms=gram")
