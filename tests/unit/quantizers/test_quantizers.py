"""Codebooks: assignment, learning, and what keeps them alive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.support.networks import ema_quantizer, vector_quantizer
from vqgan.quantizers import Quantizer, VectorQuantizer, assignment
from vqgan.quantizers.assignment import nearest
from vqgan.quantizers.rotation import pass_gradient
from vqgan.quantizers.usage import perplexity, touched

BOTH = pytest.mark.parametrize("make", [vector_quantizer, ema_quantizer])


def latents(count: int = 2, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * scale


def test_nearest_is_the_nearest_in_any_grouping(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    z, codebook = torch.randn(50, 4), torch.randn(20, 4)
    expected = torch.cdist(z.double(), codebook.double()).argmin(1)
    assert torch.equal(nearest(z, codebook), expected)
    for codes, distances in ((3, 60), (20, 20), (7, 1000)):
        monkeypatch.setattr(assignment, "ON_CPU", (codes, distances))
        assert torch.equal(nearest(z, codebook), expected)


@pytest.mark.parametrize("codes_at_once", [1, 2, 3, 4])
def test_the_lowest_index_wins_a_tie(codes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "ON_CPU", (codes_at_once, 8))
    codebook = torch.tensor([[5.0], [1.0], [1.0], [-1.0]])
    assert nearest(torch.tensor([[1.0], [0.0]]), codebook).tolist() == [1, 1]


@BOTH
def test_codes_go_forward_and_gradients_straight_back(make: Callable[[], Quantizer]) -> None:
    z = latents().requires_grad_()
    q = make()
    out = q(z)
    torch.testing.assert_close(out.latents, q.lookup(out.indices))
    (gradient,) = torch.autograd.grad((out.latents * 3).sum(), z)
    assert torch.equal(gradient, torch.full_like(z, 3.0))


@pytest.mark.parametrize(
    "make", [ema_quantizer, lambda **values: VectorQuantizer(16, 4, 0.25, 1.0, **values)], ids=["ema", "vector"]
)
def test_gradients_turn_where_asked_to_and_codes_stay_the_same(make: Callable[..., Quantizer]) -> None:
    z = latents().requires_grad_()
    torch.manual_seed(0)
    turned, codes = make(gradient="rotation"), make()
    codes.load_state_dict(turned.state_dict())
    out = turned(z)
    assert torch.equal(out.latents, turned.lookup(out.indices))
    assert torch.equal(out.latents, codes(z).latents)
    weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((out.latents * weights).sum(), z)
    expected = pass_gradient("rotation", z, out.latents)
    assert torch.equal(found, torch.autograd.grad((expected * weights).sum(), z)[0])
    assert not torch.equal(found, weights)


def test_perplexity_counts_equally_used_codes() -> None:
    assert float(perplexity(torch.tensor([7, 0, 0]))) == pytest.approx(1.0)
    assert float(perplexity(torch.tensor([5, 5, 5, 0]))) == pytest.approx(3.0)


@pytest.mark.parametrize(("commitment", "codebook"), [(0.25, 1.0), (1.0, 0.25), (0.0, 2.0)])
def test_each_weight_moves_its_own_side(commitment: float, codebook: float) -> None:
    q = vector_quantizer(commitment_weight=commitment, codebook_weight=codebook).double()
    z = latents().double().requires_grad_()
    out = q(z)
    out.loss.backward()
    codes = q.lookup(out.indices).detach()
    torch.testing.assert_close(z.grad, commitment * 2 * (z - codes).detach() / z.numel())
    difference = (codes - z.detach()).permute(0, 2, 3, 1).reshape(-1, 4)
    expected = torch.zeros_like(q.codebook).index_add_(0, out.indices.flatten(), codebook * 2 * difference / z.numel())
    torch.testing.assert_close(q.codebook.grad, expected)


def test_commitment_direction_by_finite_differences() -> None:
    """A larger commitment weight makes the loss depend more on the latents, and no more on the codes."""

    def slope(weight: float) -> float:
        q = vector_quantizer(commitment_weight=weight, codebook_weight=0.0).double()
        with torch.no_grad():
            q.codebook.copy_(torch.randn(16, 4, generator=torch.Generator().manual_seed(3)))
        z, step = latents().double(), 1e-6
        toward = (q.lookup(q(z).indices) - z).detach()
        with torch.no_grad():
            return float((q(z + step * toward).loss - q(z).loss) / step)

    assert slope(1.0) < slope(0.25) < 0
    assert slope(1.0) == pytest.approx(4 * slope(0.25), rel=1e-3)


def test_ema_update_equals_a_written_out_loop() -> None:
    q = ema_quantizer(codes=6, decay=0.9).double()
    sizes, sums = [1.0] * 6, q.codebook.clone().tolist()
    for step in range(5):
        z = latents(seed=step).double()
        indices = q(z).indices.flatten().tolist()
        flat = z.permute(0, 2, 3, 1).reshape(-1, 4).tolist()
        q.update()
        for code in range(6):
            mine = [v for v, i in zip(flat, indices) if i == code]
            sizes[code] = 0.9 * sizes[code] + 0.1 * len(mine)
            sums[code] = [0.9 * m + 0.1 * sum(v[d] for v in mine) for d, m in enumerate(sums[code])]
        total = sum(sizes)
        smoothed = [(n + 1e-5) / (total + 6 * 1e-5) * total for n in sizes]
        expected = torch.tensor([[m / n for m in row] for row, n in zip(sums, smoothed)], dtype=torch.float64)
        torch.testing.assert_close(q.codebook, expected, rtol=1e-12, atol=1e-12)


def test_the_ema_codebook_moves_in_update_only_and_by_all_micro_batches() -> None:
    whole, parts = ema_quantizer(), ema_quantizer()
    parts.load_state_dict(whole.state_dict())
    before = whole.codebook.clone()
    z = latents(count=4)
    whole(z)
    for part in z.split(2):
        parts(part)
    assert torch.equal(whole.codebook, before)
    whole.update()
    parts.update()
    torch.testing.assert_close(parts.codebook, whole.codebook)
    assert not torch.equal(whole.codebook, before)


def test_codes_that_one_batch_does_not_touch_stay_where_they_are() -> None:
    """The published cluster size of zero would throw them about 10^5 times too far out."""
    q = ema_quantizer(codes=64)
    before = q.codebook.clone()
    idle = torch.ones(64, dtype=torch.bool)
    idle[q(latents()).indices.unique()] = False
    q.update()
    assert int(idle.sum()) > 40
    assert float(q.codebook[idle].norm()) < 3 * float(before[idle].norm())


def test_start_from_data_puts_every_code_on_a_latent_once() -> None:
    q = ema_quantizer(start_from_data=True)
    z = latents(scale=100.0)
    q(z)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 4)
    assert float(torch.cdist(q.codebook, flat).min(1).values.max()) == pytest.approx(0.0, abs=1e-3)
    placed = q.codebook.clone()
    q(latents(scale=100.0, seed=1))
    assert torch.equal(q.codebook, placed)
    again = ema_quantizer(start_from_data=True)
    again.load_state_dict(q.state_dict())
    again(latents(seed=2))
    assert torch.equal(again.codebook, placed), "a loaded codebook must not start again"


def test_a_codebook_in_evaluation_neither_starts_nor_counts() -> None:
    q = ema_quantizer(start_from_data=True).eval()
    before = {name: value.clone() for name, value in q.state_dict().items()}
    q(latents())
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())
    assert int(q.chosen.sum()) == 0


def test_idle_codes_are_revived_after_so_many_steps() -> None:
    q = ema_quantizer(codes=16, revive_after=3)
    with torch.no_grad():
        q.codebook[1:] = q.cluster_sums[1:] = 1e6  # only the first can be chosen
    for step in range(3):
        assert int((q.codebook.abs() > 1e5).any(1).sum()) == 15
        q(latents(seed=step))
        q.update()
    assert float(q.codebook.abs().max()) < 1e5
    assert float(q.usage(3)) == 1 / 16, "a revived code is not in use before it is chosen"
    assert len(q(latents(seed=9)).indices.unique()) > 1


@BOTH
def test_usage_is_the_share_of_codes_chosen_lately(make: Callable[[], Quantizer]) -> None:
    q = make()
    used: set[int] = set()
    for step in range(3):
        used |= set(q(latents(count=1, seed=step)).indices.flatten().tolist())
        q.update()
    assert float(q.usage(3)) == pytest.approx(len(used) / 16)
    assert float(q.usage(1)) <= float(q.usage(3))


@pytest.mark.parametrize("seed", [0, 1])
@BOTH
def test_save_load_and_one_step_equal_never_having_stopped(make: Callable[[], Quantizer], seed: int) -> None:
    q, loaded = make(), make()
    for step in range(3):
        q(latents(seed=step))
        q.update()
    loaded.load_state_dict(q.state_dict())
    for each in (q, loaded):
        torch.manual_seed(seed)
        each(latents(seed=7))
        each.update()
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), loaded.state_dict().values()))


@pytest.mark.parametrize(("latents", "codes"), [(0, 7), (1, 7), (20, 7), (3, 1)])
def test_even_choices_touch_as_many_codes_as_counted_out(latents: int, codes: int) -> None:
    shares = torch.zeros(codes + 1, dtype=torch.float64)  # the probability that so many are touched
    shares[0] = 1
    numbers = torch.arange(codes + 1)
    for _ in range(latents):
        shares = shares * numbers / codes + (shares * (codes - numbers) / codes).roll(1)
    assert touched(latents, codes) == pytest.approx(float((shares * numbers).sum()) / codes)
