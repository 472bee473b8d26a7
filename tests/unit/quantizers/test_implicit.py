"""Use of codes that no table holds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from vqgan.quantizers import BinarySphericalQuantizer, FiniteScalarQuantizer, LookupFreeQuantizer, Quantizer, implicit
from vqgan.quantizers.implicit import perplexity_by_sorting
from vqgan.quantizers.usage import count_by_depth, perplexity

ENTROPY = {"entropy_weight": 0.1, "diversity_weight": 1.0, "entropy_boost": 1.0, "entropy_boost_steps": 1}
BSQ = {"commitment_weight": 0.0, "group_bits": 1, "temperature": 1.0, **ENTROPY}
LFQ = {"commitment_weight": 0.25, "temperature": 0.01, **ENTROPY}


MAKERS: dict[str, Callable[[], Quantizer]] = {
    "fsq": lambda: FiniteScalarQuantizer([5, 4, 3], symmetric=False, gain=1.0),
    "fsq symmetric": lambda: FiniteScalarQuantizer([5, 4, 2], symmetric=True, gain=1.0),
    "lfq": lambda: LookupFreeQuantizer(16, 1, **LFQ),
    "lfq of three": lambda: LookupFreeQuantizer(16, 3, **LFQ),
    "bsq": lambda: BinarySphericalQuantizer(32, 1, **BSQ),
    "bsq of two": lambda: BinarySphericalQuantizer(8, 2, **BSQ),
    "bsq of 36 bits": lambda: BinarySphericalQuantizer(2**36, 1, **BSQ),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Quantizer]:
    return MAKERS[request.param]


@pytest.fixture
def q(make: Callable[[], Quantizer]) -> Quantizer:
    return make()


def latents(q: Quantizer, *batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*batch, q.latent_dim, 3, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [(2,), (2, 3)])
def test_codes_are_those_of_the_indices_bit_for_bit(q: Quantizer, batch: tuple[int, ...]) -> None:
    z = latents(q, *batch).requires_grad_()
    output = q(z)
    assert output.indices.shape == (*batch, 3, 5, *([q.depth] if q.depth > 1 else []))
    assert 0 <= int(output.indices.min()) <= int(output.indices.max()) < q.codebook_size
    assert torch.equal(output.latents, q.lookup(output.indices))
    (gradient,) = torch.autograd.grad((output.latents * latents(q, *batch, seed=1)).sum() + output.loss, z)
    assert bool((gradient != 0).all())
    assert bool(gradient.isfinite().all())


def test_what_is_not_a_number_is_some_code_and_stays_seen(q: Quantizer) -> None:
    """Its index must be one that exists, since it is counted before the step is found to be broken."""
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        z = latents(q, 2)
        z[0, :, 1, 1] = value
        z[1, 0, 1, 1] = value  # alone, too: where all are, integers that overflow can cancel
        output = q(z)
        assert 0 <= int(output.indices.min()) <= int(output.indices.max()) < q.codebook_size
        if math.isnan(value):
            assert bool(output.latents[0, :, 1, 1].isnan().all())
            assert bool(output.latents[1, 0, 1, 1].isnan())


def test_evaluation_counts_nothing_and_measures_the_batch(q: Quantizer) -> None:
    q.eval()
    before = {name: value.clone() for name, value in q.state_dict().items()}
    z = latents(q, 4)
    output = q(z)
    q.train()
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())
    assert torch.equal(output.indices, q(z).indices)
    expected = torch.stack([perplexity_by_sorting(part[:, None]) for part in output.indices.reshape(-1, q.depth).T])
    torch.testing.assert_close(output.metrics["perplexity"], expected.log().mean().exp())
    assert 1 <= float(output.metrics["perplexity"]) <= 60 * (1 + 1e-6)  # no more than there are positions


def test_a_saved_state_goes_on(q: Quantizer, make: Callable[[], Quantizer]) -> None:
    again = make()
    for step in range(2):
        q(latents(q, 2, seed=step))
        q.update()
    again.load_state_dict(q.state_dict())
    for each in (q, again):
        each(latents(q, 2, seed=7))
        each.update()
    assert q.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), again.state_dict().values()))


def test_nothing_learns_by_gradients(q: Quantizer) -> None:
    assert list(q.parameters()) == []


def test_usage_is_the_share_of_codes_chosen_lately(q: Quantizer) -> None:
    chosen: set[tuple[int, int]] = set()
    for step in range(3):
        indices = q(latents(q, 1, seed=step)).indices.reshape(-1, q.depth)
        chosen |= {(place, code) for row in indices.tolist() for place, code in enumerate(row)}
        q.update()
    usage = q.usage(3)
    if q.codebook_size == 2**36:
        assert usage is None
    else:
        assert float(usage) == pytest.approx(len(chosen) / (q.depth * q.codebook_size))


@pytest.mark.parametrize(("codes", "depth"), [(2, 1), (7, 3), (1000, 2)])
def test_perplexity_by_sorting_is_that_of_a_table(codes: int, depth: int) -> None:
    indices = torch.randint(codes, (40, depth), generator=torch.Generator().manual_seed(0)).square() % codes
    expected = [perplexity(counts).log() for counts in count_by_depth(indices, codes, depth)]
    torch.testing.assert_close(perplexity_by_sorting(indices), torch.stack(expected).mean().exp())


def test_perplexity_by_sorting_is_of_indices_as_large_as_there_are() -> None:
    indices = torch.tensor([[2**61], [2**61 + 1], [0], [2**61]])
    expected = 2.0**1.5  # shares of 1/2, 1/4 and 1/4
    assert float(perplexity_by_sorting(indices)) == pytest.approx(expected)


def test_the_limit_of_counting_changes_no_perplexity(
    make: Callable[[], Quantizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = make()
    monkeypatch.setattr(implicit, "MOST_REMEMBERED", 1)
    uncounted = make()
    z = latents(counted, 3)
    assert uncounted.use is None
    torch.testing.assert_close(uncounted(z).metrics["perplexity"], counted(z).metrics["perplexity"])


def test_indices_do_not_come_from_rounded_numbers(q: Quantizer) -> None:
    """Half-precision latents are quantized as what they are, and the codes' indices lead back to the codes."""
    for dtype in (torch.bfloat16, torch.float16):
        output = q(latents(q, 2).to(dtype))
        assert torch.equal(output.indices, q(latents(q, 2).to(dtype).float()).indices)
        assert torch.equal(output.latents.float(), q.lookup(output.indices))
