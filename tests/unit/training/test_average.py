"""The average of weights has the profile of a power function, and takes in what it should."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Compose
from vqgan.discriminators import PatchGAN
from vqgan.errors import InvalidValueError
from vqgan.quantizers import EMAQuantizer, VectorQuantizer
from vqgan.training.average import WeightAverage, exponent_of, weight_of
from vqgan.training.wiring import make_trainer

YES, NO = torch.tensor(True), torch.tensor(False)


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponents_of_the_paper(width: float, exponent: float) -> None:
    assert exponent_of(width) == pytest.approx(exponent, abs=0.005)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_a_width_is_that_of_its_exponent(width: float) -> None:
    g = exponent_of(width)
    assert math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(width, rel=1e-9)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("steps", [40, 400])
def test_the_profile_is_a_power_function_as_wide_as_was_asked_for(width: float, steps: int) -> None:
    """Each step's weights are an impulse of their own, so that their average is the profile itself."""
    network = nn.Linear(steps, 1, bias=False)
    average = WeightAverage(network, width)
    for step in range(steps):
        with torch.no_grad():
            network.weight.copy_(torch.eye(steps)[step])
        average.update(step, YES)
    profile = average.network.weight[0].double().numpy()
    times = np.arange(1, steps + 1) / steps
    assert profile.sum() == pytest.approx(1, abs=1e-5)
    mean = (profile * times).sum()
    assert math.sqrt((profile * (times - mean) ** 2).sum()) == pytest.approx(width, rel=3 / steps / width)
    # ∫ s^γ from one step to the next, which the recursion gives exactly: its products telescope.
    expected = np.diff(np.concatenate([[0], times]) ** (exponent_of(width) + 1))
    np.testing.assert_allclose(profile, expected, atol=1e-6)


def test_the_first_step_forgets_the_initial_weights_and_a_skipped_one_changes_nothing() -> None:
    torch.manual_seed(0)
    network = PatchGAN(3, 8, 1, "batch")
    average = WeightAverage(network, 0.1)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    average.update(0, NO)
    assert not torch.equal(average.averages[0], average.newest[0])
    average.update(0, YES)
    assert all(torch.equal(a, n) for a, n in zip(average.averages, average.newest, strict=True))
    before = [tensor.clone() for tensor in average.averages]
    nn.init.normal_(average.newest[0])
    average.update(1, NO)
    assert all(torch.equal(a, b) for a, b in zip(average.averages, before, strict=True))
    assert weight_of(1, 6.9) == 1
    assert weight_of(10**6, 6.94) == pytest.approx(7.94e-6, rel=1e-4)


def shares_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr()


def test_statistics_counters_and_what_is_frozen_are_the_networks_own() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1).requires_grad_(False))
    average = WeightAverage(network, 0.1)
    named = [dict((*part.named_parameters(), *part.named_buffers())) for part in (network, average.network)]
    own = {name for name in named[0] if not shares_memory(named[0][name], named[1][name])}
    assert own == {"0.weight", "0.bias", "1.weight", "1.bias"}
    network(torch.randn(2, 3, 4, 4))
    assert torch.equal(average.network[1].running_mean, network[1].running_mean)
    assert not average.network.training


def quantizers() -> list[nn.Module]:
    return [
        EMAQuantizer(16, 4, 0.25, decay=0.9, eps=1e-5, start_from_data=False, revive_after=None),
        VectorQuantizer(16, 4, 0.25, 1.0),
    ]


@pytest.mark.parametrize("kind", [0, 1])
def test_tables_are_averaged_however_they_learn(kind: int) -> None:
    network = quantizers()[kind]
    average = WeightAverage(network, 0.1)
    expected = torch.zeros(16, 4, dtype=torch.float64)
    for step in range(5):
        torch.manual_seed(step)
        network(torch.randn(2, 4, 3, 3))
        network.update()
        if kind == 1:
            nn.init.normal_(network.codebook)
        average.update(step, YES)
        expected += weight_of(step + 1, average.exponent) * (network.codebook.detach().double() - expected)
    torch.testing.assert_close(average.network.codebook.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert shares_memory(average.network.idle, network.idle)
    assert not network.codebook.equal(average.network.codebook)


def test_a_quantizer_that_is_frozen_is_shared() -> None:
    network = quantizers()[0].eval()
    assert shares_memory(WeightAverage(nn.Sequential(nn.Linear(2, 2), network), 0.1).network[1].codebook,
                         network.codebook)  # fmt: skip


@pytest.mark.parametrize("model", ["vqmodel", "emavq"])
def test_a_step_that_is_not_finite_leaves_the_average_alone(model: str, composed: Compose, tmp_path: Path) -> None:
    trainer = make_trainer(composed(f"model={model}", "trainer.weight_average=0.1"), tmp_path)
    clips = torch.randint(256, (2, *trainer.journal.validation.clips.shape[1:]), dtype=torch.uint8)
    trainer.step(0, [clips])
    before = {name: value.clone() for name, value in trainer.state()["autoencoder_average"].state_dict().items()}
    trainer.autoencoder.decoder.last_layer.register_hook(lambda gradient: gradient * float("nan"))
    assert not trainer.step(1, [clips]).finite
    after = trainer.state()["autoencoder_average"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("width", [0, -0.1, 0.3])
def test_the_width_has_bounds(width: float, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"trainer\.weight_average must be in"):
        make_trainer(composed(f"trainer.weight_average={width}"), tmp_path)
