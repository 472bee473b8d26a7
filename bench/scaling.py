"""How the cost of a step grows with resolution, frames at a time, clip length and codebook size.

    python bench/scaling.py [--rounds 3] [--precision bf16] [overrides of the configuration]

For each a line is fitted through logarithms of time and size: an exponent of 1 is in proportion. Batch and clip length
are one thing to the networks, since frames are reconstructed one by one; their exponents say so.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from measure import alternating, machine, table
from step import BF16, FP32, random_clips, trainer_for

SWEEPS = {  # what is varied, from a small step's sizes
    "data.resolution": ["64", "128", "192", "256"],
    "data.batch_size": ["1", "2", "4", "8"],
    "data.clip_frames": ["1", "2", "4", "8"],
    "model.quantizer.codebook_size": ["1024", "4096", "16384", "65536"],
}
SMALL = ["data.resolution=64", "data.batch_size=1", "data.clip_frames=1", "model.quantizer.codebook_size=1024"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--points", type=int, default=4, help="of each sweep")
    args, overrides = parser.parse_known_args()
    name = BF16 if args.precision == "bf16" else FP32
    rows = []
    for key, values in SWEEPS.items():
        steps = {}
        for value in values[: args.points]:
            with tempfile.TemporaryDirectory() as folder:
                varied = ["experiment=f16", *SMALL, *overrides, f"{key}={value}"]
                trainer = trainer_for(name, Path(folder), varied)
            steps[value] = partial(trainer.step, 0, [random_clips(trainer)])
        seconds = {value: statistics.median(times) for value, times in alternating(steps, args.rounds).items()}
        size = np.log([float(value) ** (2 if key == "data.resolution" else 1) for value in seconds])
        exponent = float(np.polyfit(size, np.log(list(seconds.values())), 1)[0])
        what = f"{key}²" if key == "data.resolution" else key
        rows.append([what, ", ".join(f"{v}: {t:.3g}" for v, t in seconds.items()), f"{exponent:.2f}"])
    print(f"{machine()}, {args.precision}\n\n{table(['varied', 'seconds of a step', 'exponent'], rows)}")


if __name__ == "__main__":
    main()
