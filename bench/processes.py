"""Several processes against one: the speed of small runs that `torchrun` starts, and what their messages cost.

    OMP_NUM_THREADS=1 python bench/processes.py [--rounds 3] [--steps 24] [--out points.json] [overrides]

Each run trains on the same number of frames a step: one process with one thread, one with two, two with one each. They
take turns; the speed is that of the fastest row of `metrics.jsonl`, without waiting for data. Where others use the
machine, the processor time of a step says more: as many processes as cores take just as long, if nobody else is there.
`python bench/check.py points.json` compares these points with the cost model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import machine, table
from timed import SMALL, Both, average_gradients, large_message, rates, small_message, step_seconds

from vqgan.runtime.collectives import process_group

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    "logger=none", "trainer.device=cpu", "data=synthetic", "data.videos=8", "data.video_frames=16", "data.workers=0",
    "data.validation_clips=4", "loss=no_perceptual", "loss.discriminator_start=0", "trainer.discriminator_every=1",
)  # fmt: skip
CONFIGS = {
    "tiny": ("backbone=tiny", "model=emavq"),
    "f8": ("backbone=f8", "backbone.resolution=64", "backbone.channels=32", "model=vqmodel"),  # a small one
}
BATCHES = {"tiny": (4, 16), "f8": (2, 4, 8)}
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread": (2, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24, help="of each run")
    parser.add_argument("--configs", type=lambda names: names.split(","), default=list(CONFIGS), help="of tiny,f8")
    parser.add_argument("--most", type=int, default=8, help="processes among which messages are timed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if args.worker:
        work(args, overrides)
        return
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start\n")
    found: dict[str, Any] = {"machine": rates(), "runs": runs(args, overrides) if args.runs else []}
    if found["runs"]:
        print(f"{speeds(found['runs'])}\n")
    counts = [count for count in (1, 2, 4, 8, 16) if count <= args.most]
    messages = {count: json.loads(torchrun(count, args, overrides)) for count in counts}
    found["configs"] = {name: [*COMMON, *CONFIGS[name], *overrides] for name in args.configs}
    found["messages"], found["points"] = messages, points(messages)
    print(f"{processor_seconds(found['points'])}\n")
    rows = [[n, *(f"{1e6 * messages[n]['small'][name][0]:.0f}" for name in SMALL)] for n in counts if n > 1]
    print(f"{table(['processes', *(f'{name}, µs' for name in SMALL)], rows)}\n")
    wall, processor = messages[2]["rate"]
    print(f"all-reduce of 32 MiB between two: {wall / 1e9:.2f} GB/s, {processor / 1e9:.2f} by the processor's time\n")
    for name, seconds in messages[2]["averages"].items():
        print(f"{name}, a step of two processes\n\n{averages(seconds)}\n")
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


def runs(args: argparse.Namespace, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Frames per second of every config, batch and way, of each round."""
    measured: dict[tuple[str, int, str], list[float]] = {}
    for round_ in range(args.rounds):
        for config in args.configs:
            for batch in BATCHES[config]:
                for way, (processes, threads) in WAYS.items():
                    of_run = [*COMMON, *CONFIGS[config], f"data.batch_size={batch}", *overrides]
                    speed = run(of_run, args.steps, processes, threads)
                    measured.setdefault((config, batch, way), []).append(speed)
                    print(f"round {round_}: {config}, {batch}, {way}: {speed:.1f} frames/s", file=sys.stderr)
    return [
        dict(zip(("config", "batch", "processes", "threads", "frames_per_second"), (config, batch, *WAYS[way], speeds)))
        for (config, batch, way), speeds in measured.items()
    ]


def run(overrides: Sequence[str], steps: int, processes: int, threads: int) -> float:
    """Frames per second of the fastest row of a training run, without waiting for data."""
    every = max(1, steps // 12)
    with tempfile.TemporaryDirectory() as folder:
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(several if processes > 1 else []), str(ROOT / "train.py"), *overrides,
                   f"run_dir={folder}/run", f"trainer.steps={steps}", f"trainer.log_every={every}",
                   f"trainer.evaluate_every={steps}", f"trainer.checkpoint_every={steps}"]  # fmt: skip
        started(command, OMP_NUM_THREADS=str(threads))
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    timed = [row for row in rows if "speed/frames_per_second" in row][1:]
    return max(row["speed/frames_per_second"] / (1 - row["speed/data_wait"]) for row in timed)


def started(command: Sequence[str], **environment: str) -> str:
    """What a command prints."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def speeds(found: Sequence[dict[str, Any]]) -> str:
    """The table of runs."""
    one = [p for p in found if p["threads"] * p["processes"] == 1]
    alone = {(p["config"], p["batch"]): max(p["frames_per_second"]) for p in one}
    rows = [
        [p["config"], p["batch"], f"{p['processes']} × {p['threads']}", f"{max(p['frames_per_second']):.1f}",
         ", ".join(f"{speed:.1f}" for speed in sorted(p["frames_per_second"])),
         f"{max(p['frames_per_second']) / alone[p['config'], p['batch']]:.2f}"]
        for p in found
    ]  # fmt: skip
    return table(["config", "batch", "processes × threads", "frames/s, best", "of each round", "times as fast"], rows)


def averages(seconds: dict[str, list[Both]]) -> str:
    """The table of ways to average gradients."""
    rows = [[way, *(1e3 * min(times) for times in zip(*both))] for way, both in seconds.items()]
    return table(["gradients", "ms, best", "processor's ms, best"], rows)


def torchrun(processes: int, args: argparse.Namespace, overrides: Sequence[str]) -> str:
    """What the first of several workers prints."""
    configs = f"--configs={','.join(args.configs)}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               __file__, "--worker", f"--rounds={args.rounds}", configs, *overrides]  # fmt: skip
    return started(command, OMP_NUM_THREADS="1")


def work(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """One of several processes that time messages to each other; one or two of them time steps."""
    found: dict[str, Any] = {}
    configs = {name: [*COMMON, *CONFIGS[name], *overrides] for name in args.configs}
    with process_group() as process:
        if process.count > 1:
            found["small"] = {name: small_message(send) for name, send in SMALL.items()}
            found["rate"] = large_message()
        if process.count <= 2:
            found["steps"] = {
                name: {batch: step_seconds(typed, batch // process.count, 4 * args.rounds) for batch in BATCHES[name]}
                for name, typed in configs.items()
            }
        if process.count == 2:
            found["averages"] = {
                name: average_gradients([*typed, "data.batch_size=4"], 4 * args.rounds)
                for name, typed in configs.items()
            }
        if process.is_first:
            print(json.dumps(found))


def points(messages: dict[int, Any]) -> list[dict[str, Any]]:
    """Processor seconds of every config and batch, alone and for two."""
    return [
        {"config": config, "batch": int(batch), "processes": n, "seconds": seconds}
        for n in (1, 2)
        if n in messages
        for config, batches in messages[n]["steps"].items()
        for batch, seconds in batches.items()
    ]


def processor_seconds(found: Sequence[dict[str, Any]]) -> str:
    """The table of steps."""
    alone = {(p["config"], p["batch"]): min(p["seconds"]) for p in found if p["processes"] == 1}
    rows = [
        [p["config"], p["batch"], p["processes"], f"{min(p['seconds']):.4f}", f"{statistics.median(p['seconds']):.4f}",
         f"{alone[p['config'], p['batch']] / min(p['seconds']):.2f}"]
        for p in found
    ]  # fmt: skip
    header = ["config", "batch", "processes", "processor seconds of a step, best", "median", "times as fast"]
    return table(header, rows)


if __name__ == "__main__":
    main()
