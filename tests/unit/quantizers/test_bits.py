"""Codes of signs and their entropies, against sums over all codes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vqgan.errors import InvalidValueError
from vqgan.quantizers import BinarySphericalQuantizer, LookupFreeQuantizer
from vqgan.quantizers.bits import EntropyPenalty, entropies, mean_probabilities, sample_entropy, to_indices, to_signs


def lfq(codes: int = 16, depth: int = 1, **values: Any) -> LookupFreeQuantizer:
    settings = {
        "commitment_weight": 0.25, "entropy_weight": 0.1, "diversity_weight": 1.0, "temperature": 0.5,
        "entropy_boost": 1.0, "entropy_boost_steps": 1,
    }  # fmt: skip
    return LookupFreeQuantizer(codes, depth, **{**settings, **values})


def bsq(codes: int = 16, depth: int = 1, **values: Any) -> BinarySphericalQuantizer:
    settings = {
        "commitment_weight": 0.0, "entropy_weight": 0.1, "diversity_weight": 1.0, "group_bits": 1, "temperature": 1.0,
        "entropy_boost": 1.0, "entropy_boost_steps": 1,
    }  # fmt: skip
    return BinarySphericalQuantizer(codes, depth, **{**settings, **values})


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distributions(vectors: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """softmax(2 z·c / temperature) over all codes, as the papers have it: (n, codes)."""
    return torch.softmax(2 / temperature * vectors @ codes.T, 1)


def entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.log()).sum(-1)


def all_signs(bits: int) -> Tensor:
    """All codes of so many bits in order of their indices: (codes, bits)."""
    return torch.tensor([[1.0 if index >> i & 1 else -1.0 for i in range(bits)] for index in range(2**bits)]).double()


@pytest.mark.parametrize("bits", range(1, 11))
def test_factorised_entropies_are_the_sums_over_all_codes(bits: int) -> None:
    z = random(13, 2, bits)
    for group in range(2):
        p = distributions(z[:, group], all_signs(bits), 0.3)
        torch.testing.assert_close(mean_probabilities(4 / 0.3 * z)[group], p.mean(0), rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(
            entropies(mean_probabilities(4 / 0.3 * z))[group], entropy(p.mean(0)), rtol=1e-12, atol=0
        )
        sample = sample_entropy(4 / 0.3 * z[:, group : group + 1])
        torch.testing.assert_close(sample, entropy(p).mean(), rtol=1e-10, atol=1e-12)


def test_gradients_of_entropies_by_finite_differences() -> None:
    logits = random(5, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(sample_entropy, logits)
    assert torch.autograd.gradcheck(lambda x: entropies(mean_probabilities(x)), logits)


def test_entropies_of_sure_bits_have_finite_gradients() -> None:
    """At the published temperature probabilities of 0 are the rule: 400 is the logit of a latent of 1."""
    logits = torch.tensor([[400.0, -400.0, 3e4], [400.0, -400.0, -3e4]])[:, None].requires_grad_()
    batch = entropies(mean_probabilities(logits)).sum()
    assert float(batch.detach()) == pytest.approx(math.log(2))
    assert float(sample_entropy(logits.detach())) == 0
    (gradient,) = torch.autograd.grad(sample_entropy(logits) - batch, logits)
    assert bool(gradient.isfinite().all())


def test_the_entropy_of_a_batch_is_at_most_what_its_size_allows() -> None:
    logits = 1000 * random(7, 1, 16)
    assert float(entropies(mean_probabilities(logits)).sum()) <= math.log(7) + float(sample_entropy(logits)) + 1e-9


def test_smaller_groups_of_bits_have_no_smaller_entropy() -> None:
    logits = 3 * random(9, 8)
    found = [float(entropies(mean_probabilities(logits.view(9, -1, size))).sum()) for size in (8, 4, 2, 1)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_a_group_that_collapses_is_not_hidden_by_the_others() -> None:
    """With one mean for all groups, as published for several, half of them could always choose one code each."""
    spread = torch.cat([torch.full((8, 1, 2), 50.0), torch.full((8, 1, 2), -50.0)], 1)  # each group has one code
    pooled = entropies(mean_probabilities(spread.flatten(0, 1)[:, None]))
    assert float(pooled.sum()) == pytest.approx(math.log(2), abs=1e-4)
    assert float(entropies(mean_probabilities(spread)).sum()) == pytest.approx(0, abs=1e-4)


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that is made within."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize("make", [lfq, bsq])
def test_large_codebooks_take_little_memory(make: Any) -> None:
    """2^18 codes and 512 latents: a table of all their distances would have 134 million numbers."""
    q = make(codes=2**18)
    z = torch.randn(2, 18, 16, 16).requires_grad_()
    with Largest() as largest:
        output = q(z)
        (output.latents.sum() + output.loss).backward()
        q.update()
    assert 2**18 <= largest.numbers <= 2**19


@pytest.mark.parametrize(("bits", "depth"), [(1, 1), (4, 1), (4, 3), (18, 2), (62, 1)])
def test_bits_to_indices_and_back(bits: int, depth: int) -> None:
    z = random(2, 3, bits * depth, 2, 5)
    indices = to_indices(z, depth)
    assert indices.shape == (2, 3, 2, 5, *([depth] if depth > 1 else []))
    assert torch.equal(to_signs(indices, bits, depth), z.sign().float())
    first = z[0, 0, :bits, 0, 0] > 0
    written = sum(2**i for i, positive in enumerate(first.tolist()) if positive)
    assert int(indices[0, 0, 0, 0] if depth == 1 else indices[0, 0, 0, 0, 0]) == written


def test_zero_is_negative() -> None:
    z = torch.tensor([0.0, -0.0, 1e-30]).view(3, 1, 1)
    assert int(to_indices(z, 1)) == 4
    assert lfq(8)(z).latents.flatten().tolist() == [-1, -1, 1]


@pytest.mark.parametrize("depth", [1, 3])
def test_lfq_is_its_formula(depth: int) -> None:
    q = lfq(16, depth, diversity_weight=0.7).double()
    z = random(3, 4 * depth, 2, 2).requires_grad_()
    output = q(z)
    vectors = z.movedim(1, -1).reshape(-1, depth, 4)
    penalties = []
    for group in vectors.unbind(1):
        p = distributions(group, all_signs(4), 0.5)
        penalties.append(entropy(p).mean() - 0.7 * entropy(p.mean(0)))
    expected = 0.25 * (z - z.detach().sign()).square().mean() + 0.1 * torch.stack(penalties).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (output.loss, expected))
    )
    assert torch.equal(torch.autograd.grad((3 * output.latents).sum(), z)[0], torch.full_like(z, 3))


@pytest.mark.parametrize(("depth", "group_bits"), [(1, 4), (2, 1), (2, 2), (2, 8)])
def test_bsq_is_its_formula(depth: int, group_bits: int) -> None:
    q = bsq(16, depth, group_bits=group_bits, commitment_weight=0.5, diversity_weight=0.7, temperature=0.2).double()
    d = 4 * depth
    z = random(3, d, 2, 2).requires_grad_()
    output = q(z)
    u = z.movedim(1, -1).reshape(-1, d)
    u = u / u.square().sum(1, keepdim=True).sqrt()
    sample, batch = torch.zeros(()), torch.zeros(())
    for group in u.split(group_bits, 1):
        p = distributions(group, all_signs(group_bits) / math.sqrt(d), 0.2)
        sample, batch = sample + entropy(p).mean(), batch + entropy(p.mean(0))
    distance = (u - u.detach().sign() / math.sqrt(d)).square().sum(1).mean()
    expected = 0.5 * distance + 0.1 * (sample - 0.7 * batch)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (output.loss, expected))
    )
    torch.testing.assert_close(output.latents.norm(dim=1), torch.ones(3, 2, 2, dtype=torch.float64), rtol=1e-6, atol=0)
    cotangent = random(3, d, 2, 2, seed=1)
    ours, theirs = (
        torch.autograd.grad((codes * cotangent).sum(), z, retain_graph=True)[0]
        for codes in (output.latents, z / z.norm(dim=1, keepdim=True) / math.sqrt(d))
    )
    torch.testing.assert_close(ours, theirs)


def test_bsq_ignores_the_length_of_latents() -> None:
    q, z = bsq(), torch.randn(2, 4, 3, 3)
    assert torch.equal(q(z).indices, q(100 * z).indices)
    torch.testing.assert_close(q(z).loss, q(100 * z).loss)


def test_a_latent_of_zero_has_a_code_and_a_finite_gradient() -> None:
    z = torch.zeros(1, 4, 2, 2).requires_grad_()
    output = bsq(commitment_weight=1.0)(z)
    assert int(output.indices.max()) == 0
    (output.latents.sum() + output.loss).backward()
    assert bool(z.grad.isfinite().all())


@pytest.mark.parametrize("make", [lfq, bsq])
def test_the_loss_spreads_codes_and_makes_latents_sure(make: Any) -> None:
    q = make(commitment_weight=0.0)
    torch.manual_seed(0)
    z = (0.05 * torch.randn(4, 4, 8, 8) + 0.1).requires_grad_()
    before = q(z).metrics
    optimizer = torch.optim.Adam([z], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        q(z).loss.backward()
        optimizer.step()
    after = q(z).metrics
    assert float(after["perplexity"]) > 1.5 * float(before["perplexity"])
    assert float(after["batch_entropy"]) > float(before["batch_entropy"])
    assert float(after["sample_entropy"]) < float(before["sample_entropy"])


@pytest.mark.parametrize("make", [lfq, bsq])
def test_entropies_weigh_more_at_first_and_a_saved_state_knows_the_step(make: Any) -> None:
    q = make(commitment_weight=0.0, entropy_boost=3.0, entropy_boost_steps=4)
    z = torch.randn(2, 4, 3, 3)
    losses = []
    for _ in range(6):
        losses.append(float(q(z).loss))
        q.update()
    ratios = [loss / losses[-1] for loss in losses]
    assert ratios == pytest.approx([3, 2.5, 2, 1.5, 1, 1])
    again = make(commitment_weight=0.0, entropy_boost=3.0, entropy_boost_steps=4)
    again.load_state_dict(q.state_dict())
    assert float(again(z).loss) == losses[-1]


@pytest.mark.parametrize("make", [lfq, bsq])
def test_evaluation_leaves_entropies_out(make: Any) -> None:
    output = make(commitment_weight=2.0).eval()(torch.randn(2, 4, 3, 3))
    assert list(output.metrics) == ["perplexity"]
    assert float(output.loss) > 0


@pytest.mark.parametrize(
    ("make", "key", "values"),
    [
        *((make, key, {key: value}) for make in (lfq, bsq) for key, value in [
            ("commitment_weight", -1.0), ("entropy_weight", -1.0), ("diversity_weight", -1.0), ("temperature", 0.0),
            ("entropy_boost", -1.0), ("entropy_boost_steps", 0), ("depth", 0),
        ]),
        *((lfq, "codebook_size", {"codes": codes}) for codes in (0, 1, 1000, 2**25)),
        *((bsq, "codebook_size", {"codes": codes}) for codes in (-4, 1, 1000, 2**63)),
        *((bsq, "group_bits", {"group_bits": bits}) for bits in (0, 3, 8)),
        (bsq, "group_bits", {"group_bits": 21, "codes": 2**21}),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(make: Any, key: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=key):
        make(**values)


def test_the_penalty_is_of_a_position() -> None:
    """Of several groups the sum: two equal ones have twice the entropy of one."""
    logits = random(5, 1, 3)
    one, two = (EntropyPenalty(1.0, 1.0, boost=1.0, boost_steps=1)(logits.expand(5, groups, 3))[0] for groups in (1, 2))
    torch.testing.assert_close(two, 2 * one)
