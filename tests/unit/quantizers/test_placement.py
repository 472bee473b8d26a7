"""Codes that learn by gradients are put onto latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqgan.quantizers import CosineQuantizer, Quantizer, RevivedQuantizer
from vqgan.training.finite import Buffers

BOTH = pytest.mark.parametrize("kind", [RevivedQuantizer, CosineQuantizer])


def make(kind: Any, codes: int = 16, **values: Any) -> Any:
    torch.manual_seed(0)
    settings = {"gradient": "straight_through", "start_from_data": True, "revive_after": None, **values}
    return kind(codes, 4, commitment_weight=0.25, codebook_weight=1.0, **settings)


def latents(seed: int = 0, count: int = 2) -> Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * 10


def flat(z: Tensor, quantizer: Quantizer) -> Tensor:
    rows = z.movedim(1, -1).reshape(-1, 4)
    return torch.nn.functional.normalize(rows, dim=1) if isinstance(quantizer, CosineQuantizer) else rows


def are_on(codes: Tensor, rows: Tensor) -> Tensor:
    return torch.cdist(codes, rows).min(1).values < 1e-3


@BOTH
def test_every_code_starts_on_a_latent_of_the_first_micro_batch_once(kind: Any) -> None:
    q = make(kind)
    first = latents()
    q(first)
    placed = q.codebook.detach().clone()
    assert are_on(placed, flat(first, q)).all()
    q(latents(seed=1))
    q.update()
    q(latents(seed=2))
    assert torch.equal(q.codebook, placed)
    again = make(kind)
    again.load_state_dict(q.state_dict())
    again(latents(seed=3))
    assert torch.equal(again.codebook, placed), "a loaded codebook must not start again"


@BOTH
def test_idle_codes_are_revived_at_the_beginning_of_a_step(kind: Any) -> None:
    q = make(kind, start_from_data=False, revive_after=2)
    with torch.no_grad():
        q.codebook.copy_(torch.tensor([1.0, 0, 0, 0]) * torch.linspace(1, 2, 16)[:, None])
    used = torch.zeros(16, dtype=torch.bool)
    for step in range(2):
        used[q(latents(step)).indices.unique()] = True
        q.update()
        assert not used.all()
    before, z = q.codebook.detach().clone(), latents(7)
    due = (q.use.idle > 0) & (q.use.idle % 2 == 0)
    q(z)
    q(latents(8))  # one more micro-batch finds them placed
    assert are_on(q.codebook[due], flat(z, q)).all()
    assert torch.equal(q.codebook[~due], before[~due])
    assert len(q(z).indices.unique()) > 1


@BOTH
def test_in_evaluation_nothing_is_placed(kind: Any) -> None:
    q = make(kind, revive_after=1).eval()
    q.use.idle.fill_(1)
    before = q.codebook.detach().clone()
    q(latents())
    assert torch.equal(q.codebook, before)


@BOTH
def test_a_step_that_does_not_count_starts_no_codebook(kind: Any) -> None:
    q = make(kind)
    buffers = Buffers([q])
    broken = latents()
    broken[0, :, 0, 0] = torch.nan
    for z, finite in ((broken, False), (latents(1), False), (latents(2), True), (latents(3), True)):
        buffers.remember()
        q(z)
        q.update()
        buffers.restore_unless(torch.tensor(finite))
        assert q.codebook.isfinite().all()
    assert are_on(q.codebook, flat(latents(2), q)).all()
