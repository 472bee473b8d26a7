"""Muon for convolutions, AdamW for all else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from vqgan.errors import check

# Of the quintic iteration, chosen for a steep slope at 0: singular values end within about 0.7 to 1.2, not at 1.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
SMALLEST_NORM = 1e-7
RMS = 0.2  # that an update of AdamW has, about


class Muon(Optimizer):
    """Momentum whose update is made orthogonal, for the weights of convolutions; AdamW for all other parameters.

    Of a weight W, seen as a matrix (out, in · height · width), with the gradient G::

        M ← momentum · M + (1 - momentum) · G          U = orthogonal((1 - momentum) · G + momentum · M)
        W ← W - lr · weight_decay · W - lr · 0.2 · √max(rows, columns) · U

    With that factor U moves a weight about as far as AdamW does, so that one learning rate is for both. Source: Jordan
    et al. 2024, kellerjordan.github.io/posts/muon; the factor of Liu et al. 2025, arXiv:2502.16982, equation 4.

    `torch.optim.Muon` is the same for parameters that are matrices; those of convolutions are not, and views of them
    would not outlive a network's move to its device. Codebooks, linear layers, norms and biases are AdamW's.

    Args:
        params: of one network; those without a gradient stay as they are, and take no memory for averages.
        lr: at least 0.
        momentum: in [0, 1).
        betas: of AdamW, each in [0, 1).
        eps: of AdamW, positive.
        weight_decay: at least 0; decoupled.
    """

    _step_supports_amp_scaling = True  # on the device `found_inf` says that a step does not count: see `step_if`
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        check(lr >= 0, "lr", lr, "at least 0")
        check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        check(all(0 <= beta < 1 for beta in betas), "betas", betas, "two numbers in [0, 1)")
        check(eps > 0, "eps", eps, "positive")
        check(weight_decay >= 0, "weight_decay", weight_decay, "at least 0")
        values = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, values | {"fused": True})  # by which torch loads counts of steps onto the device

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Move the parameters that have a gradient; without effect if `found_inf` is one."""
        for group in self.param_groups:
            reached = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in filter(is_convolution, reached):
                self._step_matrix(parameter, group)
            self._step_others([parameter for parameter in reached if not is_convolution(parameter)], group)

    def _step_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        counts = parameter.new_ones(()) if self.found_inf is None else 1 - self.found_inf
        lr, momentum, average = group["lr"], group["momentum"], state["momentum_buffer"]
        gradient = torch.where(counts > 0, parameter.grad, 0.0)  # what is not finite is not so by a factor of 0
        average.lerp_(gradient, (1 - momentum) * counts)
        update = orthogonal(gradient.lerp(average, momentum).flatten(1)).view_as(parameter)
        size = RMS * math.sqrt(max(len(parameter), parameter[0].numel()))
        parameter.mul_(torch.where(counts > 0, 1 - lr * group["weight_decay"], 1.0))
        parameter.addcmul_(update, lr * size * counts, value=-1)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zero = torch.zeros((), dtype=torch.float32, device=parameter.device)
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update({"step": zero, **averages})
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_convolution(parameter: Tensor) -> bool:
    """Whether it is the weight of a convolution over space, or space and time, to several channels.

    What has a single row has no directions to balance: a convolution to one channel, a scale and shift of each channel.
    """
    return parameter.ndim in (4, 5) and len(parameter) > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """U·Vᵀ of a matrix U·S·Vᵀ, about: its singular values become ones, by Newton and Schulz's iteration in bfloat16."""
    wide = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.bfloat16().T
    x = wide / wide.norm().clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).to(matrix.dtype).contiguous()
