"""What a person sees while a run trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from tqdm import tqdm

from vqgan.loggers.logger import Advice
from vqgan.reports.text import duration
from vqgan.runtime.processor import cores

T = TypeVar("T")
EVERY = 60.0  # seconds from one line to the next, where there is no bar
SHOWN = {  # the numbers that matter on a progress bar: name, short name, format
    "train/total": ("loss", "{:.3f}"),
    "validation/psnr": ("psnr", "{:.1f} dB"),
    "validation/bits_per_token": ("bits/token", "{:.2f}"),
    "codebook/usage": ("codes", "{:.0%}"),
    "speed/frames_per_second": ("frames/s", "{:.0f}"),
}


class Clock:
    """How fast training goes, and what reading takes from it, since it was last restarted.

    Args:
        reading_seconds: how much of the processor's time reading has taken so far.
    """

    def __init__(self, reading_seconds: Callable[[], float]) -> None:
        self.reading_seconds = reading_seconds
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self.started, self.waited, self.frames = time.perf_counter(), 0.0, 0
        self.read_before = self.reading_seconds()

    def wait(self, get: Callable[[], T], is_busy: Callable[[], bool]) -> T:
        """Call `get`; its time counts as waiting for data unless the device has been busy with earlier steps."""
        before = time.perf_counter()
        got = get()
        if not is_busy():
            self.waited += time.perf_counter() - before
        return got

    def count(self, frames: int) -> None:
        """Add frames trained on."""
        self.frames += frames

    def read(self) -> dict[str, float]:
        """What is logged; nothing without frames.

        Returns:
            `speed/frames_per_second`; `speed/data_wait`, a share of the time in [0, 1]; `speed/reading`, the share of
            the cores that reading keeps busy, which networks on a CPU lack although nobody waits.
        """
        if not self.frames:
            return {}
        elapsed = time.perf_counter() - self.started
        return {
            "speed/frames_per_second": self.frames / elapsed,
            "speed/data_wait": self.waited / elapsed,
            "speed/reading": (self.reading_seconds() - self.read_before) / (elapsed * cores()),
        }


class Progress:
    """A progress bar with the numbers that matter; a line at each evaluation, which stays in a log file too.

    Without a terminal there is a line a minute instead of the bar, with the time left at the pace so far.

    Args:
        done: steps so far.
        steps: of the whole run.
        shown: of several processes one alone shows it.
        clock: seconds, whenever it is asked.
    """

    def __init__(self, done: int, steps: int, shown: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.shown, self.clock = shown, clock
        self.first = self.done = done
        self.steps = steps
        self.began = self.said = clock()
        self.bar = tqdm(initial=done, total=steps, unit="step", disable=None if shown else True, dynamic_ncols=True)
        self.values: dict[str, float] = {}
        self.evaluated = done  # the step that validation's numbers are of

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self) -> None:
        """One more step is done."""
        self.done += 1
        self.bar.update()
        if self.shown and self.bar.disable and self.done < self.steps and self.clock() - self.said >= EVERY:
            self._say()

    def show(self, step: int, row: Mapping[str, float]) -> None:
        """Take new numbers."""
        self.values |= row
        if any(name.startswith("validation/") for name in row):
            self.evaluated = step
        self.bar.set_postfix_str(self._numbers())
        if self.shown and "validation/psnr" in row:
            v = {name.removeprefix("validation/"): value for name, value in row.items()}
            tqdm.write(
                f"step {step:>7}   validation PSNR {v['psnr']:5.2f} dB   SSIM {v['ssim']:.3f}   "
                f"codes in use {v['usage']:4.0%}   perplexity {v['perplexity']:.0f}"
            )

        if self.shown and "validation/bits_per_token" in row:
            tqdm.write(f"step {step:>7}   validation {row['validation/bits_per_token']:.3f} bits a token")

    def advise(self, advice: Advice) -> None:
        """Show a warning above the bar, as a paragraph of its own."""
        tqdm.write(f"\nAdvice at step {advice.step}, {advice.title}: {advice.text}\n")

    def _say(self) -> None:
        """Evaluations so far are in the pace, as those to come are in the time left."""
        self.said = self.clock()
        pace = (self.said - self.began) / (self.done - self.first)
        left = duration(pace * (self.steps - self.done) / 3600)
        numbers = self._numbers()
        tqdm.write(f"step {self.done:>7} of {self.steps}   {left} left{f'   {numbers}' if numbers else ''}")

    def _numbers(self) -> str:
        return ", ".join(
            f"{name} {form.format(self.values[key])}" + f" at step {self.evaluated}" * key.startswith("validation/")
            for key, (name, form) in SHOWN.items()
            if key in self.values
        )
