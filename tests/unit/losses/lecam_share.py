"""What a process of several computes of LeCam: apart from the tests, whose imports take long."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqgan.losses import Judgement, LeCam
from vqgan.runtime.process import this_process


def logits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 1, 3, 3, generator=generator) + 1, torch.randn(count, 1, 1, 3, 3, generator=generator)


def judged(real: Tensor, fake: Tensor) -> Judgement:
    nothing = torch.zeros(len(real), 1, 3, 1, 1)
    return Judgement(nothing, nothing, real, fake)


def term(decay: float = 0.9) -> LeCam:
    return LeCam(0.1, decay)


def ask(term: LeCam, real: Tensor, fake: Tensor) -> Tensor:
    value: Tensor = term(nn.Identity(), judged(real, fake), 0)
    return value


def of_share(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient and averages of this process's share, after all batches."""
    process, found = this_process(), term()
    for batch in batches:
        real, fake = (x.chunk(process.count)[process.rank].clone().requires_grad_() for x in batch)
        value = ask(found, real, fake)
    return value.detach(), torch.autograd.grad(value, real)[0], found.average
