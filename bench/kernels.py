"""What a training step is made of: its longest operations, and the memory it takes at several batch sizes.

    python bench/kernels.py [--batches 1,4,16] [--longest 15] [overrides of the configuration]

Time is the device's own where there is a GPU, else the processor's; memory is what the allocator gave at most.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import machine, synchronize, table
from step import BF16, FP32, random_clips, trainer_for
from torch.profiler import ProfilerActivity, profile

from vqgan.training.trainer import Trainer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[1, 4])
    parser.add_argument("--longest", type=int, default=15)
    args, overrides = parser.parse_known_args()
    print(f"{machine()}\n")
    rows: list[Sequence[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (FP32, BF16):
            for batch in args.batches:
                trainer = trainer_for(name, Path(folder), [*overrides, f"data.batch_size={batch}"])
                rows.append([name, batch, *memory(trainer)])
        print(table(["step", "batch", "between steps, MiB", "at most, MiB"], rows))
        print(f"\nThe longest operations of one step, {name}, batch {batch}\n")
        print(table(["operation", "milliseconds", "share", "calls"], longest(trainer, args.longest)))


def memory(trainer: Trainer) -> list[object]:
    """MiB that are held between steps, and at most within one; not known of a processor."""
    clips = random_clips(trainer)
    if trainer.device.type != "cuda":
        trainer.step(0, [clips])
        return ["", ""]
    trainer.step(0, [clips])  # optimizers have their moments from here on
    synchronize()
    torch.cuda.reset_peak_memory_stats()
    trainer.step(1, [clips])
    synchronize()
    return [torch.cuda.memory_allocated() / 2**20, torch.cuda.max_memory_allocated() / 2**20]


def longest(trainer: Trainer, count: int) -> list[Sequence[object]]:
    """Operations by the time that they themselves took, kernels on a GPU."""
    clips = random_clips(trainer)
    on_gpu = trainer.device.type == "cuda"
    for step in range(2):
        trainer.step(step, [clips])
    synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        trainer.step(2, [clips])
        synchronize()
    found = [
        (event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count)
        for event in profiler.key_averages()
    ]
    whole = sum(microseconds for _, microseconds, _ in found) or 1.0
    found.sort(key=lambda row: row[1], reverse=True)
    return [
        [name[:80].replace("|", "/"), microseconds / 1e3, f"{microseconds / whole:.1%}", calls]
        for name, microseconds, calls in found[:count]
    ]


if __name__ == "__main__":
    main()
