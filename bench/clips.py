"""What a clip costs beside its frames: a backbone of clips against one of pictures, on the same clips, taking turns.

    python bench/clips.py [--pictures f8] [--rounds 3] [overrides of the configuration]
    python bench/clips.py --pictures small backbone=causal_small data.resolution=64
    python bench/clips.py data.resolution=64 backbone.channels=64      # causal_f8 against f8, small enough for a CPU

A frame's seconds (the processor's, where there is no GPU) and multiplications of a whole training step, without LPIPS
and adversary, which cost both the same, and of encoding.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measure import alternating, machine, ratio, table
from step import FP32, random_clips, trainer_for
from torch.utils.flop_counter import FlopCounterMode

from vqgan.autoencoder import Autoencoder
from vqgan.frames import Frames, to_frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", default="f8", help="the backbone that sees frames by themselves")
    parser.add_argument("--rounds", type=int, default=3)
    args, typed = parser.parse_known_args()
    common = [
        "experiment=f16", "data.batch_size=1", "data.clip_frames=17", "data.video_frames=24", "model=fsq",
        "loss.perceptual_weight=0", "loss.discriminator_weight=0", "backbone=causal_f8", *typed,
    ]  # fmt: skip
    without = [value for value in common if not value.startswith(("backbone=", "backbone.temporal"))]
    ours = next(value for value in reversed(common) if value.startswith("backbone=")).removeprefix("backbone=")
    choices = {args.pictures: [*without, f"backbone={args.pictures}"], ours: common}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: trainer_for(FP32, Path(folder), overrides) for name, overrides in choices.items()}
        clips = random_clips(trainers[ours])
        frames = to_frames(clips.to(trainers[ours].device))
        print(f"{machine()}\n{tuple(clips.shape)} at a time\n")
        networks = {name: trainer.autoencoder for name, trainer in trainers.items()}
        for what, calls, counts in (
            ("training", {name: partial(trainer.step, 0, [clips]) for name, trainer in trainers.items()},
             {name: counted(partial(backward, network, frames)) for name, network in networks.items()}),
            ("encoding", {name: partial(encode, network, frames) for name, network in networks.items()},
             {name: counted(partial(encode, network, frames)) for name, network in networks.items()}),
        ):  # fmt: skip
            clock = time.perf_counter if torch.cuda.is_available() else time.process_time
            seconds = alternating(calls, args.rounds, clock=clock)
            shown = clips.shape[0] * clips.shape[1]
            rows = [
                [name, statistics.median(seconds[name]) / shown, ratio(seconds, name, args.pictures),
                 counts[name] / shown / 1e9, counts[name] / counts[args.pictures]]
                for name in calls
            ]  # fmt: skip
            print(table([what, "seconds a frame", "times those", "GMAC a frame", "times those"], rows), "\n")


def backward(autoencoder: Autoencoder, frames: Frames) -> None:
    """What a step multiplies."""
    autoencoder(frames).reconstruction.mean().backward()


@torch.no_grad()
def encode(autoencoder: Autoencoder, frames: Frames) -> None:
    """What encoding does."""
    autoencoder.encode(frames)


def counted(call: Callable[[], object]) -> int:
    """Multiplications with an addition each, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops()) // 2


if __name__ == "__main__":
    main()
