"""Codes that learn by gradients are put onto latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqgan.quantizers import CosineQuantizer, Quantizer, RevivedQuantizer
from vqgan.quantizers.placement import due, place
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


@pytest.mark.parametrize(("codes", "each"), [(18, 1), (36, 2)])
def test_no_latent_is_taken_again_before_all_have_been(codes: int, each: int) -> None:
    rows = latents().movedim(1, -1).reshape(-1, 4)
    table = torch.zeros(codes + 1, 4)
    place(torch.arange(codes + 1) > 0, rows, table)
    assert torch.equal(table[0], torch.zeros(4))
    assert torch.equal((table[1:, None] == rows).all(-1).sum(0), torch.full((18,), each))


@pytest.mark.parametrize(("latents", "codes"), [(1024, 1000), (1500, 1024), (256, 200), (2048, 1024), (7, 5)])
def test_no_two_codes_lie_on_one_latent_where_there_is_one_for_each(latents: int, codes: int) -> None:
    rows = torch.arange(4.0 * latents).view(latents, 4)
    seen = torch.zeros(latents, dtype=torch.bool)
    for seed in range(60):
        torch.manual_seed(seed)
        table = torch.zeros(codes, 4)
        place(torch.ones(codes, dtype=torch.bool), rows, table)
        assert len(table.unique(dim=0)) == codes
        seen[(table[:, 0] / 4).long()] = True
    assert seen.all(), "each latent can be drawn"


def test_where_latents_are_few_codes_take_turns_until_each_has_had_one() -> None:
    rows, idle, seen = torch.zeros(18, 4), torch.zeros(64, dtype=torch.int64), []
    for _ in range(20):
        idle += 1
        seen.append(due(idle, 7, rows))
        assert int(seen[-1].sum()) <= 18
    counts = torch.stack(seen).sum(1).tolist()
    assert counts == [*[0] * 6, *[16] * 4, *[0] * 3, *[16] * 4, *[0] * 3]
    assert torch.equal(torch.stack(seen[:13]).sum(0), torch.ones(64, dtype=torch.int64)), "each once in seven steps"
    at_once = due(torch.full((64,), 3), 3, torch.zeros(64, 4))
    assert at_once.all(), "none waits where there is a latent for each"
    assert due(torch.full((64,), 1), 1, rows).all(), "nor where there is no time to take turns in"
