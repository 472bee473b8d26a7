"""LeCam's averages: the formula, who shares them, and what becomes of them when a step is skipped or a run stops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import Compose
from tests.support.processes import together
from tests.unit.losses.lecam_share import ask, logits, of_share, term
from vqgan.errors import InvalidValueError
from vqgan.training.run import run
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

ADVERSARIAL = ("loss/terms=lecam", "loss.discriminator_start=0", "trainer.discriminator_every=1")


def test_it_is_the_formula_with_averages_that_are_free_of_their_start() -> None:
    found, batches = term(0.8), [logits(2, seed) for seed in range(4)]
    for n, (real, fake) in enumerate(batches):
        weights = torch.tensor([0.8 ** (n - i) for i in range(n + 1)], dtype=torch.float64)
        means = torch.tensor([[r.double().mean(), f.double().mean()] for r, f in batches[: n + 1]])
        alpha_real, alpha_fake = ((weights[:, None] * means).sum(0) / weights.sum()).float()
        expected = F.relu(real - alpha_fake).square().mean() + F.relu(alpha_real - fake).square().mean()
        torch.testing.assert_close(ask(found, real, fake), expected, rtol=1e-5, atol=0)


def test_each_patch_is_penalised_for_what_is_beyond_the_other_side_s_average() -> None:
    real, fake = (x.requires_grad_() for x in logits(2, 0))
    value = ask(term(0.0), real, fake)
    found = torch.autograd.grad(value, [real, fake])
    torch.testing.assert_close(found[0], 2 * F.relu(real - fake.mean()).detach() / real.numel())
    torch.testing.assert_close(found[1], -2 * F.relu(real.mean() - fake).detach() / fake.numel())


def test_the_decay_is_checked() -> None:
    with pytest.raises(InvalidValueError, match="decay"):
        term(1.0)


@pytest.mark.slow
def test_two_processes_have_the_averages_of_one() -> None:
    batches = [logits(4, seed) for seed in range(3)]
    value, gradient, average = of_share(batches)
    shares = together(2, of_share, batches)
    for _, _, found in shares:
        torch.testing.assert_close(found, average, rtol=1e-6, atol=0)
    torch.testing.assert_close((shares[0][0] + shares[1][0]) / 2, value)
    torch.testing.assert_close(torch.cat([share[1] for share in shares]) / 2, gradient)


def trainer_of(composed: Compose, tmp_path: Path) -> Trainer:
    (tmp_path / "run").mkdir()
    return make_trainer(composed(*ADVERSARIAL), tmp_path / "run")


def average_of(trainer: Trainer) -> Tensor:
    return trainer.loss.state_dict()["terms.lecam.average"]


def test_a_skipped_step_leaves_the_averages_as_they_were(composed: Compose, tmp_path: Path) -> None:
    trainer = trainer_of(composed, tmp_path)
    batches = trainer.loader.batches(0)
    metrics = trainer.step(0, [next(batches)]).metrics
    assert "adversarial/lecam" in metrics
    before = average_of(trainer).clone()
    assert float(before[2]) > 0
    assert trainer.discriminator is not None
    next(trainer.discriminator.parameters()).data.fill_(torch.nan)
    assert not bool(trainer.step(1, [next(batches)]).finite)
    assert torch.equal(average_of(trainer), before)


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_averages_that_it_would_have_had(composed: Compose, tmp_path: Path) -> None:
    values = (*ADVERSARIAL, "trainer.checkpoint_every=2")
    whole = average_of(run(composed(*values, "trainer.steps=4", f"run_dir={tmp_path / 'whole'}")))
    run(composed(*values, "trainer.steps=2"))
    assert torch.equal(average_of(run(composed(*values, "trainer.steps=4"))), whole)
