"""Steps whose numbers are not finite: left out, counted, and too many of them end the run.

Whether a step counts is decided on the device; the host looks only when it needs to know, so that it does not wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.layers import StartsFromData

WINDOW = 1000  # steps in which the share of skipped ones is judged


class SkippedSteps:
    """Counts the steps that were left out.

    Args:
        most_in_a_row: one more ends the run.
        most_of_window: a larger share of the last 1000 steps ends it; in [0, 1].
    """

    def __init__(self, most_in_a_row: int, most_of_window: float) -> None:
        self.most_in_a_row, self.most_of_window = most_in_a_row, most_of_window
        self.total = 0
        self.recent: list[int] = []  # those that can still count, rising

    def add(self, step: int) -> str | None:
        """Count one; returns why the run must end, if it must."""
        self.total += 1
        self.recent = [*(s for s in self.recent if s > step - WINDOW), step]
        row = next((n for n, s in enumerate(reversed(self.recent)) if s != step - n), len(self.recent))
        if row > self.most_in_a_row:
            return f"{row} steps in a row"
        if len(self.recent) > self.most_of_window * WINDOW:
            return f"{len(self.recent)} of the last {WINDOW} steps"
        return None

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped, and which of the last ones."""
        return {"total": self.total, "recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.total, self.recent = state["total"], list(state["recent"])


class Buffers:
    """What a step changes in networks beside parameters (statistics of norms, codebooks), to undo it.

    Args:
        networks: on their device already.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        networks = list(networks)
        saved = [network.state_dict() for network in networks]  # others are zero between steps, or never change
        self.buffers = [
            buffer
            for network, state in zip(networks, saved)
            for name, buffer in network.named_buffers()
            if name in state
        ]
        self.starting = [m for network in networks for m in network.modules() if isinstance(m, StartsFromData)]
        self.before: list[Tensor] = []

    def remember(self) -> None:
        """A step begins: keep them as they are."""
        for module in self.starting:
            module.begin_step()
        # Copies, not references: norms and codebooks are changed in place.
        self.before = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """The step is over: put them back as they were, unless it was finite."""
        # A choice made by the device, so that the host need not know yet whether the step counts.
        for buffer, before in zip(self.buffers, self.before):
            buffer.copy_(torch.where(finite, buffer, before))
        self.before = []


def step_if(finite: Tensor, optimizer: Optimizer) -> None:
    """Let an optimizer step, without effect if `finite` is false.

    Optimizers with `fused: true` decide that on the device, as they would for a gradient scaler, so that nothing waits
    for it; for others the host must know, and on Apple's GPUs, where fused ones do not look at it (pytorch #186360).
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False) and finite.device.type != "mps":
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif finite:
        optimizer.step()


def nonfinite(values: Any) -> list[str]:
    """The names of the numbers and tensors in nested dicts and lists that are not finite; one wait for each device."""
    named = [(name, torch.as_tensor(value).isfinite().all()) for name, value in _numbers(values, "")]
    broken = []
    for device in {flag.device for _, flag in named}:
        names, flags = zip(*((name, flag) for name, flag in named if flag.device == device))
        broken += [name for name, finite in zip(names, torch.stack(flags).tolist()) if not finite]
    return broken


def _numbers(values: Any, path: str) -> Iterator[tuple[str, Tensor | float]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, path)
    elif isinstance(values, Tensor | float):
        yield path, values
