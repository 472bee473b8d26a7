"""One of the two players: a network and what moves it."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.runs.checkpoint import Stateful
from vqgan.runtime.device import keep_layout, keep_values
from vqgan.runtime.gradients import GradientAverage
from vqgan.training.average import WeightAverage
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
        weight_average: relative width of an average of its weights; None for none.
    """

    def __init__(
        self,
        network: N,
        optimizer: Optimizer,
        schedule: Schedule,
        parts: int,
        clip_gradients: float | None,
        weight_average: float | None,
    ) -> None:
        self.network, self.optimizer, self.schedule, self.clip_gradients = network, optimizer, schedule, clip_gradients
        keep_layout(optimizer)  # a fused optimizer walks through memory, and a checkpoint has another order
        keep_values(optimizer)  # of the config: a checkpoint brings those of the run before
        self.gradient_average = GradientAverage(network.parameters(), parts)
        self.weight_average = None if weight_average is None else WeightAverage(network, weight_average)
        self.norm = torch.zeros(())  # of the gradient, since the last `finish`

    @property
    def measured(self) -> N:
        """The network that is measured, shown and exported: with the average of the weights, where there is one."""
        return self.network if self.weight_average is None else self.weight_average.network

    def finish(self) -> Tensor:
        """Wait until the gradient is the mean over all processes; returns its norm.

        On a GPU only its stream waits, not the host.
        """
        self.gradient_average.finish()
        self.norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        return self.norm

    def update(self, step: int, finite: Tensor) -> None:
        """Move the parameters by the gradient, unless the step is not finite; the gradient is over then."""
        # By the norm that `finish` has found already: it reads the whole gradient once.
        if self.clip_gradients is not None:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self.clip_gradients, self.norm)
        # From the step alone: a run that goes on needs no scheduler's state.
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        step_if(finite, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)  # a gradient that is gone is not added to, and takes no memory

    def state(self, name: str) -> dict[str, Stateful]:
        """What changes of it in training, by name in a checkpoint."""
        parts: dict[str, Stateful] = {name: self.network, f"{name}_optimizer": self.optimizer}
        if self.weight_average is not None:
            parts[f"{name}_average"] = self.weight_average.network
        return parts

    def average_weights(self, step: int, finite: Tensor) -> None:
        """Take the weights that the step has left behind into their average, where there is one."""
        if self.weight_average is not None:
            self.weight_average.update(step, finite)

    def learning_rate(self, step: int) -> float:
        """That of a step, a function of the step alone."""
        return self.optimizer.defaults["lr"] * self.schedule(step)
