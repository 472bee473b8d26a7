"""An average of the weights over training, which reconstructs better than the newest weights do."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vqgan.quantizers import Quantizer

N = TypeVar("N", bound=nn.Module)


class WeightAverage(Generic[N]):
    """A network with an average of another one's weights, whose profile is a power function of the step.

    With θ_t the weights after t steps::

        θ̂_t = β_t · θ̂_{t-1} + (1 - β_t) · θ_t        β_t = (1 - 1/t)^(γ+1)

    so that step s has the weight ~ s^γ. However long a run is, the newest part of it counts, as wide as the same share
    of what was trained so far: one width suits runs of minutes and of days, there is nothing to warm up, and the
    initial weights are forgotten at once (β_1 = 0). Source: Karras et al. 2023, arXiv:2312.02696, equations 121 to 127.

    Averaged are the parameters that are trained, and a quantizer's tables that learn without gradients. Those follow
    the newest encoder's latents, from which the averaged encoder's have moved away by as much as the encoder drifts
    within the width; as latents are nearly linear in small changes of the weights, the average of the tables is to the
    averaged encoder what the newest table is to the newest one. All else *is* the network's own, shared and not copied:
    statistics of norms, counters, what is frozen, tables that never change.

    Args:
        network: that is trained, on its device already; what is frozen is marked so.
        width: in (0, 0.288), see `exponent_of`; EDM2 has 0.05 to 0.1 for long runs.

    Attributes:
        network: the average; in evaluation mode, without gradients.
    """

    def __init__(self, network: N, width: float) -> None:
        self.exponent = exponent_of(width)
        names = _averaged(network)
        tensors = _tensors_of(network)
        # What `deepcopy` is told that it has copied already is taken as it is.
        own = {id(tensor): tensor for name, tensor in tensors.items() if name not in names}
        self.network = copy.deepcopy(network, own).eval()
        averages = _tensors_of(self.network)
        self.newest = [tensors[name] for name in names]
        self.averages = [averages[name].requires_grad_(False) for name in names]

    @torch.no_grad()
    def update(self, step: int, finite: Tensor) -> None:
        """Take in what a step has left behind; nothing, if it was not finite.

        Args:
            step: its number, counted from 0.
            finite: whether it counts; a flag on the device, for which the host does not wait.
        """
        weight = torch.where(finite, weight_of(step + 1, self.exponent), 0.0)
        torch._foreach_lerp_(self.averages, self.newest, [weight] * len(self.newest))


def weight_of(steps: int, exponent: float) -> float:
    """1 - β_t: the weight of the newest of `steps` steps (equation 127); in (0, 1], and 1 for the first one."""
    return 1 - (1 - 1 / steps) ** (exponent + 1)


def exponent_of(width: float) -> float:
    """γ of the profile with a relative width: its standard deviation, as a share of all that was trained so far.

    width = √((γ+1) / ((γ+2)² (γ+3))), which is solved for γ (equation 126). γ = 0, the plain mean, has 12^-½ = 0.289.
    """
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return dict((*network.named_parameters(), *network.named_buffers()))


def _averaged(network: nn.Module) -> list[str]:
    """The names of what is averaged."""
    saved = network.state_dict()
    quantizers = [part for part in network.modules() if isinstance(part, Quantizer) and part.training]
    tables = {id(buffer) for part in quantizers for buffer in part.buffers() if buffer.is_floating_point()}
    learned = [name for name, buffer in network.named_buffers() if name in saved and id(buffer) in tables]
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad] + learned
