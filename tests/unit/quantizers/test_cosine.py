"""Codes on the unit sphere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqgan.quantizers import CosineEMAQuantizer, CosineQuantizer
from vqgan.training.average import WeightAverage

KINDS = {
    CosineQuantizer: {"commitment_weight": 0.25, "codebook_weight": 1.0},
    CosineEMAQuantizer: {"commitment_weight": 0.25, "decay": 0.9},
}
BOTH = pytest.mark.parametrize("kind", KINDS)
GRADIENTS = pytest.mark.parametrize("gradient", ["straight_through", "rotation"])


def make(kind: Any, codes: int = 16, **values: Any) -> Any:
    torch.manual_seed(0)
    settings = {"gradient": "straight_through", "start_from_data": False, "revive_after": None}
    return kind(codes, 4, **{**KINDS[kind], **settings, **values})


def latents(seed: int = 0, count: int = 2) -> Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


@GRADIENTS
@BOTH
def test_latents_become_the_unit_vectors_of_the_largest_cosine(kind: Any, gradient: str) -> None:
    q = make(kind, gradient=gradient)
    z = latents()
    out = q(z)
    cosines = torch.einsum("nchw,kc->nhwk", F.normalize(z, dim=1), F.normalize(q.codebook.detach(), dim=1))
    assert torch.equal(out.indices, cosines.argmax(-1))
    torch.testing.assert_close(out.latents.norm(dim=1), torch.ones(2, 3, 3))
    assert torch.equal(q.lookup(out.indices), out.latents)
    assert torch.equal(q.lookup(out.indices[:1, :1]), out.latents[:1, :, :1]), "the same bits whatever the number"


@BOTH
def test_so_they_do_with_an_average_of_codebooks(kind: Any) -> None:
    q = make(kind, revive_after=2)
    average = WeightAverage(q, 0.2)
    for seed in range(6):
        q(latents(seed))
        q.update()
        if isinstance(q, CosineQuantizer):
            nn.init.normal_(q.codebook)
        average.update(seed, torch.tensor(True))
    assert float(average.network.codebook.norm(dim=1).min()) < 0.98, "what was averaged has other lengths"
    out = average.network(latents(9))
    cosines = torch.einsum(
        "nchw,kc->nhwk", F.normalize(latents(9), dim=1), F.normalize(average.network.codebook.detach(), dim=1)
    )
    assert torch.equal(out.indices, cosines.argmax(-1))
    torch.testing.assert_close(out.latents.norm(dim=1), torch.ones(2, 3, 3))
    assert torch.equal(average.network.lookup(out.indices), out.latents)


@GRADIENTS
@BOTH
def test_the_length_of_latents_does_not_matter_and_gets_no_gradient(kind: Any, gradient: str) -> None:
    q = make(kind, gradient=gradient)
    z = latents().requires_grad_()
    out, larger = q(z), q(100 * z)
    assert torch.equal(out.indices, larger.indices)
    torch.testing.assert_close(out.loss, larger.loss)
    (slope,) = torch.autograd.grad(out.latents.square().sum() + (out.latents * latents(3)).sum() + out.loss, z)
    assert float(slope.abs().max()) > 1e-2
    torch.testing.assert_close((slope * z).sum(1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)


@BOTH
def test_latents_of_zero_are_finite(kind: Any) -> None:
    q = make(kind)
    z = torch.zeros(1, 4, 2, 2, requires_grad=True)
    out = q(z)
    (out.loss + out.latents.sum()).backward()
    assert out.loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_the_first_steps_turn_no_code_far() -> None:
    """As they would if codes began near 0, where a step of the optimizer is many times their length."""
    q = make(CosineQuantizer, codes=1024)
    torch.testing.assert_close(q.codebook.detach().norm(dim=1), torch.ones(1024))
    before = q.codebook.detach().clone()
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-2)
    q(latents()).loss.backward()
    optimizer.step()
    angles = torch.rad2deg(torch.arccos(F.cosine_similarity(before, q.codebook.detach()).clamp(-1, 1)))
    assert 0 < float(angles.max()) < 10


def test_the_moving_codes_are_mean_directions() -> None:
    q = make(CosineEMAQuantizer, codes=6)
    sums = q.codebook.double().tolist()
    for step in range(4):
        z = latents(step)
        chosen = q(z).indices.flatten().tolist()
        directions = F.normalize(z.double().movedim(1, -1).reshape(-1, 4), dim=1).tolist()
        q.update()
        for code in range(6):
            mine = [v for v, i in zip(directions, chosen) if i == code]
            sums[code] = [0.9 * m + 0.1 * sum(v[d] for v in mine) for d, m in enumerate(sums[code])]
        torch.testing.assert_close(
            q.codebook.double(), F.normalize(torch.tensor(sums).double(), dim=1), atol=1e-5, rtol=0
        )


def test_a_code_that_nothing_chooses_keeps_its_direction_for_ever() -> None:
    q = make(CosineEMAQuantizer, codes=64, decay=0.5)
    before = q.codebook.clone()
    unused = torch.ones(64, dtype=torch.bool)
    for _ in range(400):  # 0.5^400 is 0 in float32
        unused[q(latents()).indices.unique()] = False
        q.update()
    assert int(unused.sum()) > 30
    torch.testing.assert_close(q.codebook[unused], before[unused])


@BOTH
def test_save_load_and_one_step_equal_never_having_stopped(kind: Any) -> None:
    q, loaded = (make(kind, start_from_data=True, revive_after=1) for _ in range(2))
    for step in range(3):
        q(latents(step))
        q.update()
    loaded.load_state_dict(q.state_dict())
    for each in (q, loaded):
        torch.manual_seed(1)
        each(latents(7))
        each.update()
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), loaded.state_dict().values()))
