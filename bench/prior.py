"""A prior's training against the same network's forward and backward pass alone, on the same clips, taking turns.

    python bench/prior.py TOKENS [--rounds 5] [--steps 10] [overrides of conf/prior.yaml]

The processor's seconds of both, of all threads; on a GPU the clock's. Training is the trainer's loop: drawing clips,
the step, the look whether it was finite, the optimizer, rows. Evaluations and checkpoints are left out: how often they
come is a choice.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from measure import machine, synchronize

from vqgan.config.build import conf_dir
from vqgan.prior.wiring import PriorTrainer, make_trainer


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        root = f"data.root={arguments.tokens}"
        config = compose("prior", [root, f"run_dir={folder}", "logger=none", *arguments.overrides])
        trainer = make_trainer(config, Path(folder))
        found: dict[str, list[float]] = {"training": [], "forward and backward": []}
        for round_ in range(-1, arguments.rounds):  # the first one warms up
            for name, run in (("training", train), ("forward and backward", bare)):
                before = clock(trainer.device)
                run(trainer, arguments.steps)
                if round_ >= 0:
                    found[name].append(clock(trainer.device) - before)
    ratio = statistics.median(a / b for a, b in zip(*found.values()))
    seconds = ", ".join(
        f"{name} {statistics.median(s) / arguments.steps * 1e3:.0f} ms a step" for name, s in found.items()
    )
    print(f"{seconds}; ratio {ratio:.3f}. {machine()}")


def clock(device: torch.device) -> float:
    """Seconds: of the processor, or on a GPU of the clock."""
    synchronize()
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def train(trainer: PriorTrainer, steps: int) -> None:
    """So many steps as the loop has them, and the look at what came of them."""
    batches = trainer.loader.batches(trainer.done)
    for _ in range(steps):
        trainer.journal.outcomes.add(trainer.step(trainer.done, [next(batches)]))
        trainer.done += 1
    trainer.journal.outcomes.settle()
    trainer.journal.outcomes.numbers()


def bare(trainer: PriorTrainer, steps: int) -> None:
    """The network alone, on clips that are there already."""
    drawn = [clips.to(trainer.device) for clips in islice(trainer.loader.batches(0), 1)]
    for _ in range(steps):
        with trainer.step.autocast():
            loss = trainer.prior(drawn[0].codes, drawn[0].begins, drawn[0].side).mean()
        loss.backward()
        trainer.prior.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
