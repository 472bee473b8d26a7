"""Two processes quantize as one does on the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.processes import together
from vqgan.quantizers import (
    CosineEMAQuantizer,
    EMAQuantizer,
    IndexPropagationQuantizer,
    Quantizer,
    ResidualQuantizer,
    RevivedQuantizer,
    WassersteinQuantizer,
)
from vqgan.runtime.collectives import mean_over_processes
from vqgan.runtime.process import this_process

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {"commitment_weight": 0.25, "gradient": "straight_through"}
STILL: dict[str, Any] = {"start_from_data": False, "revive_after": None}


def batch(step: int) -> Tensor:
    """This process's share of a step's four latents."""
    process = this_process()
    z = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(step)) + torch.arange(4).view(4, 1, 1, 1)
    return z.chunk(process.count)[process.rank]


def trained(quantizer: Quantizer, steps: int = 3) -> dict[str, Tensor]:
    """What a quantizer has after some steps of plain gradient descent, and what its last gradient and loss were."""
    for step in range(steps):
        quantizer.zero_grad()
        z = batch(step).requires_grad_()
        out = quantizer(z)
        (out.loss + out.latents.square().mean()).backward()
        with torch.no_grad():
            for parameter in quantizer.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * mean_over_processes(parameter.grad)
        quantizer.update()
    return {name: value.detach().clone() for name, value in quantizer.state_dict().items()}


def quantizers() -> dict[str, Quantizer]:
    torch.manual_seed(0)
    ema = EMAQuantizer(16, 4, commitment_weight=0.25, decay=0.9, eps=1e-5, **STILL)
    return {
        "cosine_ema": CosineEMAQuantizer(16, 4, **COMMON, **STILL, decay=0.9),
        "ibq": IndexPropagationQuantizer(
            16, 4, 1.0, 1.0, 0.25, entropy_weight=0.5, diversity_weight=1.0, temperature=1.0, **STILL
        ),
        "residual": ResidualQuantizer(ema, 3, shared=True, scale=1.0, gradient="straight_through"),
        "revived": RevivedQuantizer(16, 4, **COMMON, **STILL, codebook_weight=1.0),
        "wasserstein": WassersteinQuantizer(
            16, 4, **COMMON, **STILL, codebook_weight=1.0, matching_weight=0.5, moments_decay=0.9
        ),
    }


def all_trained() -> dict[str, dict[str, Tensor]]:
    placed = RevivedQuantizer(16, 4, **COMMON, codebook_weight=1.0, start_from_data=True, revive_after=1)
    return {
        **{name: trained(quantizer) for name, quantizer in quantizers().items()},
        "start": trained(placed, 1),
        "revival": trained(placed, 2),
    }


@pytest.fixture(scope="module")
def of_two() -> list[dict[str, dict[str, Tensor]]]:
    return together(2, all_trained)


@pytest.mark.parametrize("name", quantizers())
def test_what_is_learnt_is_that_of_one_process(name: str, of_two: list[dict[str, dict[str, Tensor]]]) -> None:
    alone = trained(quantizers()[name])
    for process in of_two:
        for key, value in alone.items():
            torch.testing.assert_close(process[name][key], value, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["start", "revival"])
def test_all_processes_place_the_same_codes_on_the_same_latents(
    name: str, of_two: list[dict[str, dict[str, Tensor]]]
) -> None:
    first, second = (process[name] for process in of_two)
    assert all(torch.equal(first[key], second[key]) for key in first)
