"""What processes time of themselves for bench/processes.py: products, messages, steps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from step import FP32, random_clips, trainer_for
from torch import nn
from work import Counter

from vqgan.runtime.collectives import broadcast, gather, sum_over_processes
from vqgan.runtime.gradients import GradientAverage
from vqgan.training.trainer import Trainer

Both = tuple[float, float]  # seconds by the clock, and of the processor


def rates() -> dict[str, float]:
    """What a core of this machine reaches: large products, operators bound by memory, the start of an operator."""
    torch.set_num_threads(1)
    a, b, one = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.zeros(1)
    x = torch.randn(8, 32, 64, 64).to(memory_format=torch.channels_last).requires_grad_()  # 4 MiB
    norm = nn.GroupNorm(8, 32)

    def activate() -> None:  # what the networks do most beside convolutions
        F.silu(norm(x)).sum().backward()

    with Counter() as counter:
        activate()
    return {
        "matrix_rate": 2 * 2048**3 / best(lambda: a @ b)[1],
        "memory_rate": counter.found.other_bytes / best(activate)[1],
        "launch": best(lambda: [one.add_(1) for _ in range(1000)])[1] / 1000,
    }


def best(run: Callable[[], object], rounds: int = 10) -> Both:
    """Seconds, and processor's seconds: the best of some rounds."""
    found = []
    for _ in range(rounds + 1):
        before, processor = time.perf_counter(), time.process_time()
        run()
        found.append((time.perf_counter() - before, time.process_time() - processor))
    seconds, processors = zip(*found[1:])
    return min(seconds), min(processors)


SMALL: dict[str, Callable[[], object]] = {
    "all-reduce of 8 bytes": partial(sum_over_processes, torch.tensor(0)),
    "broadcast object": partial(broadcast, False),
    "gathered object": partial(gather, {}),
}


def large_message(mebibytes: int = 32) -> Both:
    """Bytes per second that each process sends."""
    numbers, n = torch.zeros(mebibytes * 2**18), dist.get_world_size()
    sent = 2 * (n - 1) / n * 4 * numbers.numel()
    clock, processor = best(lambda: dist.all_reduce(numbers))
    return sent / clock, sent / processor


def small_message(send: Callable[[], object], often: int = 50) -> Both:
    """Seconds and processor's seconds."""
    seconds, processor = best(lambda: [send() for _ in range(often)])
    return seconds / often, processor / often


def step_seconds(overrides: Sequence[str], frames: int, rounds: int) -> list[float]:
    """Processor seconds of steps, of the process that takes longest."""
    trainer = trainer_with(GradientAverage, [*overrides, f"data.batch_size={frames}"])
    clips, seconds = random_clips(trainer), []
    for _ in range(rounds + 2):
        before = time.process_time()
        trainer.step(0, [clips])
        seconds.append(max(gather(time.process_time() - before)))
    return seconds[2:]


class Waiting(GradientAverage):
    """Sends everything after the backward pass instead of during it."""

    def _arrived(self, bucket: Any, _: Any) -> None:
        pass


def average_gradients(overrides: Sequence[str], rounds: int) -> dict[str, list[Both]]:
    """Steps whose gradients are not averaged, or after the backward pass, or during it, in turns."""
    ways: dict[str, Callable[[], object]] = {}
    for name, kind in {"not averaged": None, "after the backward pass": Waiting, "during it": GradientAverage}.items():
        trainer = trainer_with(kind, overrides)
        ways[name] = partial(trainer.step, 0, [random_clips(trainer)])
    found: dict[str, list[Both]] = {way: [] for way in ways}
    for round_ in range(-2, rounds):
        for way, step in ways.items():
            before, processor = time.perf_counter(), time.process_time()
            step()
            both = time.perf_counter() - before, time.process_time() - processor
            if round_ >= 0:
                found[way].append(max(gather(both)))
    return found


def trainer_with(average: type[GradientAverage] | None, overrides: Sequence[str]) -> Trainer:
    """A trainer of one of several processes, which is not asked whether the others have the same folder."""
    known, dist.is_initialized = dist.is_initialized, lambda: False
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_for(FP32, Path(folder), list(overrides))
    finally:
        dist.is_initialized = known
    for player in trainer.step.players:
        if average is not None:
            player.gradient_average = average(player.network.parameters(), 1)
    return trainer
