"""Muon moves convolutions as `torch.optim.Muon` moves matrices, and all else as `torch.optim.AdamW` does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Compose
from vqgan.errors import InvalidValueError
from vqgan.runtime.device import keep_layout, keep_values
from vqgan.training.finite import step_if
from vqgan.training.muon import Muon, is_convolution, orthogonal
from vqgan.training.wiring import make_trainer

VALUES = {"lr": 0.01, "momentum": 0.9, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = [(6, 4, 3, 3), (40, 2, 3, 3), (4, 3, 2, 3, 3), (5, 7, 1, 1)]


def parameters() -> list[nn.Parameter]:
    shapes = [*SHAPES, (16, 4), (7,), (1, 4, 1, 1)]  # a codebook, a bias, a scale a channel
    return [nn.Parameter(torch.randn(s, generator=torch.Generator().manual_seed(n))) for n, s in enumerate(shapes)]


def gradients(step: int) -> list[Tensor]:
    return [torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + n))
            for n, p in enumerate(parameters())]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_torchs_muon_for_matrices_and_adamw_for_the_rest(layout: torch.memory_format) -> None:
    ours, theirs = parameters(), parameters()
    for p in ours:
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=layout)
    count = len(SHAPES)
    matrices = [nn.Parameter(p.detach().flatten(1)) for p in theirs[:count]]
    optimizer = Muon(ours, **VALUES)
    muon = torch.optim.Muon(
        matrices, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(theirs[count:], lr=0.01, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
    for step in range(4):
        for p, q, gradient in zip(ours, [*matrices, *theirs[count:]], gradients(step), strict=True):
            p.grad, q.grad = gradient.clone(), gradient.clone().view_as(q)
        for each in (optimizer, muon, adamw):
            each.step()
    for p, q in zip(ours[:count], matrices, strict=True):
        torch.testing.assert_close(p.detach().flatten(1), q.detach(), rtol=1e-6, atol=1e-6)
    for p, q in zip(ours[count:], theirs[count:], strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("shape", [(8, 8), (8, 72), (72, 8), (3, 200)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.4 < float(values.min()) <= float(values.max()) < 1.3
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), 0)
    assert cosine > 0.95
    assert orthogonal(torch.zeros(shape)).isfinite().all()


def test_a_step_that_does_not_count_changes_nothing() -> None:
    def run(finites: list[bool]) -> list[Tensor]:
        own = parameters()
        optimizer = Muon(own, **VALUES)
        for step, finite in enumerate(finites):
            if finite is None:
                continue
            for p, gradient in zip(own, gradients(step)):
                p.grad = gradient if finite else torch.full_like(gradient, float("nan"))
            step_if(torch.tensor(finite), optimizer)
        states = [value for p in own for _, value in sorted(optimizer.state[p].items())]
        return [*(p.detach() for p in own), *states]

    with_gaps, without = run([False, True, False, True]), run([None, True, None, True])  # type: ignore[list-item]
    assert all(torch.equal(a, b) for a, b in zip(with_gaps, without, strict=True))


def test_state_is_taken_back_with_the_values_of_the_config() -> None:
    def advance(own: list[nn.Parameter], optimizer: Muon, steps: range) -> None:
        for step in steps:
            for p, gradient in zip(own, gradients(step)):
                p.grad = gradient
            optimizer.step()

    whole, first = parameters(), parameters()
    optimizer = Muon(whole, **VALUES)
    advance(whole, optimizer, range(4))
    before = Muon(first, **VALUES | {"lr": 0.01})
    advance(first, before, range(2))
    after = Muon(first, **VALUES)
    keep_layout(after)
    keep_values(after)
    before.param_groups[0]["lr"] = 7.0
    after.load_state_dict(before.state_dict())
    assert after.param_groups[0]["lr"] == VALUES["lr"]
    advance(first, after, range(2, 4))
    assert all(torch.equal(p, q) for p, q in zip(whole, first, strict=True))


def test_what_is_frozen_stays_and_takes_no_memory() -> None:
    own = parameters()
    optimizer = Muon(own, **VALUES)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(own, parameters(), strict=True))
    assert not any(optimizer.state.values())


def test_of_a_network_the_convolutions_are_its(composed: Compose, tmp_path: Path) -> None:
    trainer = make_trainer(composed("optimizer=muon", "model=vqmodel", "optimizer.lr=0.02"), tmp_path)
    for network in (trainer.autoencoder, trainer.discriminator):
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
        weights = {id(module.weight) for module in convolutions if module.out_channels > 1}
        assert len(weights) > 1
        assert weights == {id(p) for p in network.parameters() if is_convolution(p)}
    before = trainer.autoencoder.decoder.last_layer.detach().clone()
    assert trainer.step(0, [next(trainer.loader.batches(0))]).finite
    assert trainer.step.autoencoder.optimizer.param_groups[0]["lr"] == 0.02
    moved = (trainer.autoencoder.decoder.last_layer.detach() - before).square().mean().sqrt()
    assert float(moved) == pytest.approx(0.2 * 0.02, rel=0.3), "the size of a step of AdamW"


@pytest.mark.parametrize(
    ("key", "value"), [("momentum", 1.0), ("betas", [0.9, 1.0]), ("eps", 0.0), ("weight_decay", -1.0), ("lr", -1.0)]
)
def test_ranges(key: str, value: object, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=rf"optimizer\.{key} must be"):
        make_trainer(composed("optimizer=muon", f"optimizer.{key}={value}"), tmp_path)
