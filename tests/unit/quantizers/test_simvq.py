"""Frozen codes and what moves them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vqgan.quantizers import ProjectedQuantizer
from vqgan.training.finite import Buffers


def make(codes: int = 16, dim: int = 4, gradient: str = "straight_through") -> ProjectedQuantizer:
    torch.manual_seed(0)
    return ProjectedQuantizer(codes, dim, commitment_weight=0.25, codebook_weight=1.0, gradient=gradient)


def latents(seed: int = 0, count: int = 2, dim: int = 4) -> Tensor:
    return torch.randn(count, dim, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_a_step_moves_all_codes_by_one_map_and_leaves_what_is_frozen() -> None:
    q = make()
    before, frozen = q.codebook(), q.frozen.detach().clone()
    optimizer = torch.optim.AdamW(q.parameters(), lr=0.1, weight_decay=0.5)
    out = q(latents())
    out.loss.backward()
    optimizer.step()
    assert q.frozen.grad is None
    assert torch.equal(q.frozen, frozen)
    assert len(optimizer.state) == 2
    assert ((q.codebook() - before).abs().max(1).values > 1e-3).all(), "those that nothing chose too"


def test_frozen_codes_are_saved_but_not_copied_in_each_step() -> None:
    q = make()
    assert "frozen" in q.state_dict()
    assert all(buffer.shape != q.frozen.shape for buffer in Buffers([q]).buffers)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_codes_that_are_looked_up_have_the_bits_of_those_that_went_forward(gradient: str) -> None:
    q = make(codes=300, dim=24, gradient=gradient)
    z = latents(count=5, dim=24).requires_grad_()
    out = q(z)
    assert torch.equal(q.lookup(out.indices), out.latents)
    assert torch.equal(q.lookup(out.indices[:1, :1, :1]), out.latents[:1, :, :1, :1])
    (slope,) = torch.autograd.grad(out.latents.sum(), z)
    assert float(slope.abs().min()) > 0


def test_the_gradient_of_the_map_is_that_of_projecting_all_codes() -> None:
    q = make().double()
    z = latents().double()
    out = q(z)
    out.loss.backward()
    weights = [parameter.detach().requires_grad_() for parameter in q.projection.parameters()]
    all_codes = torch.nn.functional.linear(q.frozen, *weights)
    e = all_codes[out.indices].movedim(-1, 1)
    loss = (e - z).square().mean() + 0.25 * (z - e.detach()).square().mean()
    torch.testing.assert_close(out.loss, loss)
    for parameter, expected in zip(q.projection.parameters(), torch.autograd.grad(loss, weights)):
        torch.testing.assert_close(parameter.grad, expected)


def test_it_is_saved_and_copied_whole() -> None:
    q, other = make(), copy.deepcopy(make())
    with torch.no_grad():
        other.frozen.add_(1)
    other.load_state_dict(q.state_dict())
    assert torch.equal(q(latents()).latents, other(latents()).latents)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that is computed."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_a_large_codebook_needs_little_memory_beside_itself() -> None:
    q = make(codes=2**18, dim=8)
    with Largest() as largest:
        q(latents(dim=8)).loss.backward()
    assert largest.numbers == q.frozen.numel()
