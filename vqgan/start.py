"""Parts that take their start from the first training batch, without asking the device at every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


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
