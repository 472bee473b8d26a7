"""What all benchmarks share: alternating measurements, the machine in words, tables."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch


def alternating(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call; the contestants take turns, so that a machine that drifts drifts for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(-warm_up, rounds):
        for name, run in contestants.items():
            gc.collect()
            synchronize()
            before = clock()
            run()
            synchronize()
            if round_ >= 0:
                seconds[name].append(clock() - before)
    return seconds


def synchronize() -> None:
    """Wait until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str) -> float:
    """How many times as long `slow` took: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast]))


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Floating-point operations per second of a large matrix product: the best of ten."""
    side = side or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(alternating({"": lambda: a @ b}, rounds=10, warm_up=3)[""])
    return 2 * side**3 / best


def machine() -> str:
    """The hardware and software, in words."""
    if torch.cuda.is_available():
        hardware = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        hardware = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
    return f"{hardware}; Python {platform.python_version()}, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
