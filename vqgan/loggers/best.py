"""The best values of a run so far, which are what runs are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HIGHER, LOWER = ("psnr", "ssim"), ("lpips", "rfid", "rfvd")  # is better; of the scalars `validation/…`
BEST_STEP = "best/step"  # of the highest PSNR


class Best:
    """The best value of each measure, and the step of the highest PSNR, whose checkpoint is `best`."""

    NAMES = tuple(f"validation/{name}" for name in (*HIGHER, *LOWER))

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def look(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Take a row; returns the best values, by the scalars' own names, after an evaluation, else nothing."""
        measured = {name: scalars[name] for name in self.NAMES if name in scalars}
        if measured and step > 0 and self.values.get(BEST_STEP) == 0:
            self.values.clear()  # before the first step: no run's best, and no checkpoint, unless it is all there is
        for name, value in measured.items():
            sign = 1 if name.removeprefix("validation/") in HIGHER else -1
            if name not in self.values or sign * value > sign * self.values[name]:
                self.values[name] = value
                if name == "validation/psnr":
                    self.values[BEST_STEP] = step
        return dict(self.values) if measured else {}

    def state_dict(self) -> dict[str, Any]:
        """The values."""
        return dict(self.values)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.values = dict(state)
