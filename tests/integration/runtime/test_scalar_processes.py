"""Quantizers without a table measure the batch of all processes as one process does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.processes import together
from vqgan.quantizers import BinarySphericalQuantizer, FiniteScalarQuantizer, LookupFreeQuantizer, Quantizer
from vqgan.runtime.process import this_process

pytestmark = pytest.mark.slow

ENTROPY = {"entropy_weight": 0.1, "diversity_weight": 1.0, "entropy_boost": 3.0, "entropy_boost_steps": 4}


def quantizers() -> dict[str, Quantizer]:
    lfq = {"commitment_weight": 0.25, "temperature": 0.5, **ENTROPY}
    bsq = {"commitment_weight": 0.25, "temperature": 0.5, "group_bits": 2, **ENTROPY}
    return {
        "fsq": FiniteScalarQuantizer([8, 5, 5], symmetric=False, gain=1.0),
        "lfq": LookupFreeQuantizer(16, 2, **lfq),
        "bsq": BinarySphericalQuantizer(16, 1, **bsq),
        "bsq of many codes": BinarySphericalQuantizer(2**30, 2, **bsq),
    }


def measured(processes: int) -> dict[str, dict[str, Tensor]]:
    """What this process finds of its share of a batch; gradients as their average over processes has them."""
    found = {}
    for name, q in quantizers().items():
        whole = torch.randn(4, q.latent_dim, 3, 3, generator=torch.Generator().manual_seed(0))
        z = whole.chunk(processes)[this_process().rank].clone().requires_grad_()
        output = q(z)
        output.loss.requires_grad_().backward()
        gradient = torch.zeros_like(z) if z.grad is None else z.grad / processes
        q.update()
        found[name] = {"loss": output.loss.detach(), "gradient": gradient, **output.metrics, **q.state_dict()}
    return found


@pytest.fixture(scope="module")
def of_two() -> list[dict[str, Any]]:
    return together(2, measured, 2)


@pytest.mark.parametrize("name", quantizers())
def test_two_processes_are_one(name: str, of_two: list[dict[str, Any]]) -> None:
    alone = measured(1)[name]
    parts = [found[name] for found in of_two]
    torch.testing.assert_close(torch.cat([part.pop("gradient") for part in parts]), alone.pop("gradient"))
    torch.testing.assert_close(torch.stack([part.pop("loss") for part in parts]).mean(), alone.pop("loss"))
    sample = [part.pop("sample_entropy", torch.zeros(())) for part in parts]  # of each one's share
    torch.testing.assert_close(torch.stack(sample).mean(), alone.pop("sample_entropy", torch.zeros(())))
    for part in parts:
        assert part.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(part[key], value)
