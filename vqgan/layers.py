"""Layers that take their start from data, or whose statistics are of all processes' batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqgan.runtime.collectives import count_of_processes, mean_over_processes


class StartsFromData(nn.Module):
    """A module with a buffer that says whether it has started.

    Reading it makes the host wait for the device, so it is read only until a step has begun with the buffer set. Not
    sooner: a start is taken back if the step that it happens in is skipped.
    """

    surely_started = False

    def has_started(self) -> bool:
        """Whether it has; the device is asked as long as that is not sure."""
        return self.surely_started or bool(self._start_flag())

    def begin_step(self) -> None:
        """Take note that a training step begins: a start that stands now stands for ever."""
        self.surely_started = self.has_started()

    def _start_flag(self) -> Tensor:
        raise NotImplementedError

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.surely_started = False


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the shares of all processes, as over one batch; PyTorch's own does that on GPUs only."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """weight · (x - mean) / √(variance + eps) + bias, in float32."""
        processes = count_of_processes()
        if processes == 1 or not self.training:
            return super().forward(x)
        mean = mean_over_processes(x.float().mean((0, 2, 3)))
        centered = x.float() - mean[:, None, None]
        variance = mean_over_processes(centered.square().mean((0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), processes * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, of which the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


class ActNorm(StartsFromData):
    """Per-channel scale and shift that start by whitening the first training batch (Glow, arXiv:1807.03039)."""

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """scale · (x + loc)."""
        if self.training and not self.has_started():
            self._start_from(x)
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _start_from(self, x: Float[Tensor, "n c h w"]) -> None:
        mean = mean_over_processes(x.float().mean(dim=(0, 2, 3), keepdim=True))
        count = count_of_processes() * x.numel() // x.shape[1]
        squares = mean_over_processes((x.float() - mean).square().mean(dim=(0, 2, 3), keepdim=True))
        deviation = (squares * count / (count - 1)).sqrt()  # unbiased, as the reference
        if (deviation + mean).isfinite().all():  # else the step is skipped, and the next one is the first
            # `data`, since a skipped step's graph of the batch before, which was not finite, may hold these values.
            self.loc.data.copy_(-mean)
            self.scale.data.copy_(1 / (deviation + 1e-6))
            self.initialized.fill_(1)

    def _start_flag(self) -> Tensor:
        return self.initialized


class Recomputes(nn.Module):
    """A part that can have its activations computed a second time in the backward pass, instead of keeping them."""

    recompute = False

    def maybe_recomputed(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """What the function gives; with `recompute` only its arguments are kept until the backward pass."""
        if not (self.recompute and torch.is_grad_enabled()):
            return function(*arguments)
        kept: Tensor = checkpoint(function, *arguments, use_reentrant=False)
        return kept


class Frozen(nn.Module):
    """A network whose weights come from a file and never change: always in evaluation mode, and never saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_forget)
        self.register_load_state_dict_pre_hook(_keep)

    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002
        """Stay in evaluation mode whatever is asked for."""
        return super().train(False)


def _forget(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:  # noqa: ARG001
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _keep(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = [*module.named_parameters(), *module.named_buffers()]
    state.update({prefix + name: tensor for name, tensor in own})
