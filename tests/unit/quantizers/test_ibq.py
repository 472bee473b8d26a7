"""Index backpropagation, against the same with all probabilities written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.unit.quantizers.test_simvq import Largest
from vqgan.quantizers import IndexPropagationQuantizer, softmax
from vqgan.quantizers.softmax import entropies, expected_code, most_aligned

WEIGHTS = {"soft_weight": 1.0, "commitment_weight": 0.7, "codebook_weight": 0.25, "entropy_weight": 0.05}


def make(codes: int = 23, dim: int = 4, **values: Any) -> IndexPropagationQuantizer:
    torch.manual_seed(0)
    settings = {"diversity_weight": 0.5, "temperature": 0.3, "start_from_data": False, "revive_after": None}
    return IndexPropagationQuantizer(codes, dim, **{**WEIGHTS, **settings, **values})


def latents(seed: int = 0, count: int = 2, dim: int = 4) -> Tensor:
    return torch.randn(count, dim, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[1, 5, 100], ids=lambda codes: f"{codes} codes at once")
def _in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "FEWEST_CODES", request.param)
    monkeypatch.setattr(softmax, "LOGITS_AT_ONCE", 1)


@pytest.mark.usefixtures("_in_parts")
def test_it_is_the_published_formula() -> None:
    q = make().double()
    z = latents().double().requires_grad_()
    g = latents(1).double()
    out = q(z)
    flat = z.movedim(1, -1).reshape(-1, 4)
    logits = flat @ q.codebook.T
    s = logits.softmax(1)
    h = F.one_hot(logits.argmax(1), 23).double()
    passed = ((h - s.detach() + s) @ q.codebook) - (s - s.detach()) @ (q.codebook - q.codebook.detach())
    hard = h @ q.codebook
    p = (logits / 0.3).softmax(1)
    mean = p.mean(0)
    loss = (
        (passed - flat).square().mean() + 0.7 * (flat - hard.detach()).square().mean()
        + 0.25 * (hard - flat.detach()).square().mean()
        + 0.05 * (-(p * p.log()).sum(1).mean() + 0.5 * (mean * mean.log()).sum())
    )  # fmt: skip
    assert torch.equal(out.indices.flatten(), logits.argmax(1))
    torch.testing.assert_close(out.loss, loss)
    grid = passed.view(2, 3, 3, 4).movedim(-1, 1)
    for ours, theirs in ((out.loss, loss), ((out.latents * g).sum(), (grid * g).sum())):
        for a, b in zip(*(torch.autograd.grad(x, (z, q.codebook), retain_graph=True) for x in (ours, theirs))):
            torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("_in_parts")
def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    z, codebook = torch.randn(3, 2, dtype=torch.float64), torch.randn(11, 2, dtype=torch.float64)
    inputs = (z.requires_grad_(), codebook.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: entropies(a, b, 0.5), inputs)
    # Of the weighted codes the gradient goes through the weights alone, so these are held.
    fixed = codebook.detach().clone()
    expected = (z @ codebook.T).softmax(1) @ fixed
    found = expected_code(z, codebook)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), inputs, retain_graph=True) for x in (found, expected))):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("_in_parts")
def test_the_lowest_of_equal_codes_is_taken() -> None:
    codebook = torch.cat([torch.zeros(3, 1), torch.ones(20, 1)])
    assert most_aligned(torch.tensor([[2.0], [-1.0]]), codebook).tolist() == [3, 0]


def test_all_codes_get_a_gradient_and_codes_go_forward_to_the_bit() -> None:
    q = make(entropy_weight=0.0)
    z = latents().requires_grad_()
    out = q(z)
    assert torch.equal(q.lookup(out.indices), out.latents)
    chosen = torch.zeros(23, dtype=torch.bool)
    chosen[out.indices.flatten()] = True
    assert not chosen.all()
    (slope,) = torch.autograd.grad((out.latents * latents(1)).sum(), q.codebook)
    assert (slope[~chosen].abs().max(1).values > 0).all()


def test_shares_of_zero_have_finite_gradients() -> None:
    z = (latents() * 100).requires_grad_()
    q = make(temperature=0.01)
    q(z).loss.backward()
    assert q.codebook.grad is not None
    assert q.codebook.grad.isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_in_evaluation_nothing_but_the_choice_is_computed() -> None:
    q = make().eval()
    with torch.no_grad():
        out = q(latents())
    assert "batch_entropy" not in out.metrics
    assert torch.equal(out.latents, q.lookup(out.indices))


def test_latents_times_codes_are_never_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "LOGITS_AT_ONCE", 2**16)
    q = make(codes=2**15, dim=4, temperature=1.0)
    z = latents(count=8).requires_grad_()
    with Largest() as largest:
        q(z).loss.backward()
    assert largest.numbers == q.codebook.numel()
    assert 10 * largest.numbers < 8 * 3 * 3 * 2**15


def test_save_load_and_one_step_equal_never_having_stopped() -> None:
    q, loaded = (make(start_from_data=True, revive_after=1) for _ in range(2))
    for step in range(3):
        q(latents(step))
        q.update()
    loaded.load_state_dict(q.state_dict())
    for each in (q, loaded):
        torch.manual_seed(1)
        each(latents(7))
        each.update()
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), loaded.state_dict().values()))
