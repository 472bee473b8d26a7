"""What a training step costs on other machines: time, bottleneck, network, data, storage, for 1 to 1024 GPUs.

    python bench/cost.py experiment=f16 trainer.precision=bf16 [--frames 8] [--machines h100,a100] [--batch 256]
    python bench/check.py points.json                    # against what bench/processes.py has measured

A step's operations, bytes and messages are counted on real steps of the composed config (bench/work.py); machines,
corpus and prices are in bench/machines.yaml; docs/scale.md explains the equations and discusses the results.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import table
from omegaconf import OmegaConf
from work import Work, kept

GPUS = (1, 2, 8, 64, 256, 1024)
DAY = 86400
FACTS = Path(__file__).with_name("machines.yaml")


@dataclass(frozen=True)
class Machine:
    """Nodes of GPUs; see machines.yaml. Bytes and FLOP per second, seconds."""

    matrix_rate: dict[str, float]
    memory_rate: float
    memory_bytes: float
    gpus_per_node: int
    cores_per_node: int
    link_rate: float
    network_rate: float
    storage_rate: float
    achieved: dict[str, float]
    launch: float
    latency: dict[str, float]
    asynchronous: bool  # the device works while the host prepares what comes next
    overlap: float  # of messages with computation: 1 where they share nothing, 0 where they need the same cores

    def hops(self, gpus: int) -> float:
        """One after the other, of a small message to all and back: NCCL has trees, gloo a ring."""
        return 2 * math.log2(gpus) if self.asynchronous else 2 * (gpus - 1)

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds: each process sends and receives 2 (n - 1) / n of the bytes, whatever the algorithm."""
        if gpus == 1:
            return 0.0
        rate = self.link_rate if gpus <= self.gpus_per_node else min(self.link_rate, self.network_rate)
        bytes_sent = 2 * (gpus - 1) / gpus * size
        return self.hops(gpus) * self.latency["device"] + bytes_sent / (rate * self.achieved["network"])


@dataclass(frozen=True)
class Data:
    """What clips cost before they are frames."""

    bytes_per_frame: float  # that is trained on
    decode: float  # frames/s of a core


@dataclass(frozen=True)
class Step:
    """Predicted seconds of one training step; parts that go on at the same time do not add up."""

    gpus: int
    frames: float  # of each GPU
    matrix: float
    memory: float
    network: float  # what is not hidden behind the backward pass
    host: float  # launching operators, and talking to the other hosts
    data: float
    storage: float
    asynchronous: bool

    @property
    def seconds(self) -> float:
        """From one step to the next."""
        device = self.matrix + self.memory + self.network
        both = max(device, self.host) if self.asynchronous else device + self.host
        return max(both, self.data, self.storage)

    @property
    def bottleneck(self) -> str:
        """What would have to be faster."""
        device = self.matrix + self.memory + self.network
        sides = {"host": self.host, "data": self.data, "storage": self.storage}
        slowest = max(sides, key=lambda name: sides[name])
        if sides[slowest] > device:
            return slowest
        return max(("matrix", "memory", "network"), key=lambda name: float(getattr(self, name)))

    @property
    def frames_per_second(self) -> float:
        """Of all GPUs together."""
        return self.gpus * self.frames / self.seconds


def predict(work: Work, machine: Machine, data: Data, precision: str, gpus: int, frames: float, parts: int = 1) -> Step:
    """One step of `gpus` processes on `frames` frames each, in so many micro-batches."""
    done = (work.alone if gpus == 1 else work.together).at(frames)
    memory_rate = machine.memory_rate * machine.achieved["memory"]
    matrix_rate = machine.matrix_rate[precision] * machine.achieved["matrix"]
    matrix, memory = max(done.flops / matrix_rate, done.matrix_bytes / memory_rate), done.other_bytes / memory_rate
    launches = parts * done.operators * machine.launch
    waits = parts * sum(machine.all_reduce(size, gpus) for size in work.messages)
    cores = machine.cores_per_node / machine.gpus_per_node - 1  # one is the training process's own
    node = min(gpus, machine.gpus_per_node)
    return Step(
        gpus=gpus,
        frames=frames,
        matrix=matrix,
        memory=memory,
        network=waits + exposed(work, machine, gpus, max(matrix + memory, launches), parts),
        host=max(launches + host_messages(work, machine, gpus), stop_flag(machine, gpus)),
        data=frames / (max(cores, 1) * data.decode),
        storage=frames * node * data.bytes_per_frame / machine.storage_rate,
        asynchronous=machine.asynchronous,
    )


def exposed(work: Work, machine: Machine, gpus: int, compute: float, parts: int = 1) -> float:
    """Seconds that a step's gradients are under way after it has been computed, on average.

    Buckets queue for the network: the decoder's are ready before the encoder's backward pass of the last micro-batch,
    the encoder's after it, the discriminator's at the end of its part, which comes last.
    """
    encoder, discriminator = (share * compute / parts for share in (work.encoder, work.discriminator))
    ready = (compute - discriminator - encoder, compute - discriminator, compute)
    finished = alone = 0.0
    for begin, buckets, often in zip(ready, work.buckets, (1, 1, 1 / work.discriminator_every)):
        seconds = often * sum(machine.all_reduce(size, gpus) for size in buckets)
        finished, alone = max(finished, begin) + seconds, alone + seconds
    hidden = machine.overlap * (alone - max(0.0, finished - compute))
    return alone - hidden


def host_messages(work: Work, machine: Machine, gpus: int) -> float:
    """Seconds a step in which hosts wait for each other: a logged step gathers an object, in two rings."""
    return machine.latency["host"] * 2 * (gpus - 1) / work.log_every


def stop_flag(machine: Machine, gpus: int) -> float:
    """Seconds that the flag of signals is under way, in gloo's ring, while the next step is computed."""
    return machine.latency["host"] * 2 * (gpus - 1)


def evaluation_share(work: Work, step: Step, clip_frames: int) -> float:
    """Of the time: forward passes over the validation clips, shared by all, and over the first process's pictures."""
    shown = 8 * clip_frames + 8
    frames = math.ceil(work.validation_frames / clip_frames / step.gpus) * clip_frames + shown
    seconds = frames / step.frames * (step.matrix + step.memory) / 3  # a forward pass is a third of a step
    return seconds / (seconds + work.evaluate_every * step.seconds)


def interruptions(work: Work, step: Step, failures: Any) -> tuple[float, float]:
    """Expected a day, and the share of time that they cost: half of what lies between checkpoints, and a new start."""
    a_day = step.gpus * failures.per_gpu_day
    lost = work.checkpoint_every * step.seconds / 2 + failures.restart
    return a_day, a_day * lost / DAY


def predictions(work: Work, machine: Machine, facts: Any, args: argparse.Namespace, batch: int | None) -> str:
    """The table of one machine: a clip on each GPU, or `batch` frames on all together, a clip after the other."""
    data = data_of(facts, args.frames)
    rows: list[Sequence[object]] = []
    one = predict(work, machine, data, args.precision, 1, batch or args.frames, (batch or args.frames) // args.frames)
    for gpus in GPUS if batch is None else sorted({*GPUS, batch // args.frames}):  # the last: a clip on each
        clips = 1 if batch is None else batch // (gpus * args.frames)
        if clips == 0:
            continue
        step = predict(work, machine, data, args.precision, gpus, clips * args.frames, clips)
        # One clip of training of each stored clip.
        pass_days = facts.corpus.clips * args.frames / step.frames_per_second / DAY
        parts = (step.matrix, step.memory, step.network, step.host, step.data, step.storage)
        a_day, lost = interruptions(work, step, facts.failures)
        rows.append([
            gpus, f"{step.frames_per_second:,.0f}", f"{step.frames_per_second / one.frames_per_second / gpus:.0%}",
            *(f"{1e3 * part:.3g}" for part in (step.seconds, *parts)), step.bottleneck,
            f"{args.steps * step.seconds / DAY:.3g}", f"{pass_days:,.1f}", f"{gpus * pass_days:,.0f}",
            f"{step.frames_per_second / args.frames:,.0f}", f"{evaluation_share(work, step, args.frames):.1%}",
            f"{a_day:.2g}", f"{lost:.2%}",
        ])  # fmt: skip
    header = ["GPUs", "frames/s", "efficiency", "step, ms", "matrix", "memory", "network", "host", "data", "storage"]
    header += ["bottleneck", f"days, {args.steps:,} steps", "days a pass", "GPU-days"]
    header += ["requests/s", "evaluation", "failures a day", "lost"]
    return table(header, rows)


def data_of(facts: Any, clip_frames: float) -> Data:
    """Each clip of training is read from a stored one of its own, all of it."""
    return Data(facts.corpus.clip_bytes / clip_frames, facts.corpus.decode)


def corpus_costs(facts: Any) -> str:
    """The corpus in object storage."""
    corpus, prices = facts.corpus, facts.prices
    size = corpus.clips * corpus.clip_bytes
    shards = math.ceil(size / corpus.shard_bytes)
    rows: list[Sequence[object]] = [
        ["bytes of a clip", f"{corpus.clip_bytes:,.0f}"],
        ["bytes of the corpus", f"{size / 1e12:,.1f} TB"],
        ["shards", f"{shards:,}"],
        ["storage", f"{size * prices.storage_per_month:,.0f} USD a month"],
        ["writing all shards", f"{shards * prices.put_request:,.2f} USD"],
        ["a pass, a request for each clip", f"{corpus.clips * prices.get_request:,.0f} USD"],
        ["a pass from elsewhere, egress", f"{size * prices.egress:,.0f} USD"],
    ]
    return table(["a corpus of " + f"{corpus.clips:,} clips", ""], rows)


def machines_of(facts: Any) -> dict[str, Machine]:
    """By name."""
    return {name: Machine(**values) for name, values in OmegaConf.to_container(facts.machines).items()}


def main() -> None:
    """Count, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8, help="of a clip; each GPU has one clip")
    parser.add_argument("--batch", type=int, default=256, help="frames of a step in the table of a constant batch")
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--machines", type=lambda names: names.split(","), help="of machines.yaml: h100,a100")
    parser.add_argument("--counts", type=Path, help="file in which what is counted is kept: of f16 it takes minutes")
    args, overrides = parser.parse_known_args()
    facts = OmegaConf.load(FACTS)
    work = kept(args.counts, overrides)
    args.precision = "bf16" if "trainer.precision=bf16" in overrides else "fp32"
    print(f"`{' '.join(overrides)}`\n\n{describe(work)}\n")
    for name, machine in machines_of(facts).items():
        if args.machines is None or name in args.machines:
            print(f"{name}, {args.frames} frames on each GPU\n")
            print(predictions(work, machine, facts, args, None), "\n")
            print(f"{name}, {args.batch} frames a step on all together, {args.frames} at a time\n")
            print(predictions(work, machine, facts, args, args.batch), "\n")
    print(corpus_costs(facts))


def describe(work: Work) -> str:
    """What was counted."""
    frame, fixed, more = work.alone.per_frame, work.alone.fixed, work.together.at(1) + work.alone.at(1) * -1
    rows: list[Sequence[object]] = [
        ["FLOP of a frame", f"{frame.flops / 1e9:,.1f} G"],
        ["bytes of a frame: convolutions and products", f"{frame.matrix_bytes / 1e9:.2f} GB"],
        ["bytes of a frame: everything else", f"{frame.other_bytes / 1e9:.2f} GB"],
        ["bytes of a step beside its frames", f"{(fixed.matrix_bytes + fixed.other_bytes) / 1e9:.2f} GB"],
        ["bytes more, with one frame, as one of several processes", f"{more.other_bytes / 1e9:.2f} GB"],
        ["operators of a step", f"{fixed.operators:,.0f}"],
        ["parameters, both players", f"{work.parameters / 1e6:.1f} M"],
        ["gradients sent: decoder, encoder, discriminator", ", ".join(f"{sum(b) / 1e6:.1f} MB" for b in work.buckets)],
        ["small messages that a step waits for", f"{len(work.messages)}, {sum(work.messages) / 1e3:.1f} kB"],
        ["a checkpoint", f"{work.checkpoint_bytes / 2**30:.2f} GiB"],
    ]
    return table(["a step", ""], rows)


if __name__ == "__main__":
    main()
