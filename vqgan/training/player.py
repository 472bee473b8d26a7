"""One of the two players: a network and what moves it."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.runtime.device import keep_layout, keep_values
from vqgan.runtime.gradients import GradientAverage
from vqgan.training.finite import step_if
from vqgan.training.schedules import Schedule

N = TypeVar("N", bound=nn.Module)


class Player(Generic[N]):
    """A network that learns from gradients which several processes share.

    Args:
        network: on its device already.
        optimizer: of its parameters.
        schedule: the factor of the learning rate.
        parts: micro-batches per step, each with one backward pass into the network.
        clip_gradients: largest norm of its gradient; None for no clipping.
    """

    def __init__(
        self, network: N, optimizer: Optimizer, schedule: Schedule, parts: int, clip_gradients: float | None
    ) -> None:
        self.network, self.optimizer, self.schedule, self.clip_gradients = network, optimizer, schedule, clip_gradients
        keep_layout(optimizer)
        keep_values(optimizer)
        self.average = GradientAverage(network.parameters(), parts)
        self.norm = torch.zeros(())  # of the gradient, since the last `finish`

    def finish(self) -> Tensor:
        """Wait until the gradient is the mean over all processes; returns its norm.

        On a GPU only its stream waits, not the host.
        """
        self.average.finish()
        self.norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        return self.norm

    def update(self, step: int, finite: Tensor) -> None:
        """Move the parameters by the gradient, unless the step is not finite; the gradient is over then."""
        if self.clip_gradients is not None:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self.clip_gradients, self.norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        step_if(finite, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """That of a step, a function of the step alone."""
        return self.optimizer.defaults["lr"] * self.schedule(step)
