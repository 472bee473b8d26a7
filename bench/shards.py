"""Training clips from shards against the videos that they were made of, and from storage that takes its time.

    python bench/shards.py VIDEOS [--resolution 256] [--clip-frames 16] [--batches 12] [--latency 0.05] [--rounds 3]

The storage is a folder over HTTP on this machine, each answer of which begins after `latency` seconds. All read random
clips through the loader, and are timed when its reading processes, if any, are well under way.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from measure import alternating, machine, ratio, table
from omegaconf import DictConfig, OmegaConf
from range_server import serve

from vqgan.config.build import build, conf_dir
from vqgan.config.command import command_config
from vqgan.data import BadFiles, Corpus, Loader
from vqgan.data.sharding.folder import FolderSharder
from vqgan.data.sharding.index import ShardIndex, read_index
from vqgan.data.sharding.storage import Storage

WORKERS, IN_FLIGHT = (0, 2, 4, 8), 16


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--clip-frames", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=12, help="that are timed, per round")
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        typed = [f"resolution={args.resolution}", f"clip_frames={max(24, args.clip_frames)}", "index=null"]
        before = time.perf_counter()
        said = FolderSharder(build(command_config("shard", typed), ""), args.videos, shards).run()
        took, size = time.perf_counter() - before, sum(tar.stat().st_size for tar in shards.glob("*.tar"))
        print(f"{machine()}; {os.cpu_count()} cores\n\n{said} in {took:.1f} s: {size / 1e6:.1f} MB\n")
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(shards, args.latency, there), daemon=True)
        server.start()
        url = here.recv()
        contestants = {"the videos": ("videos", str(args.videos), 0), "shards": ("shards", str(shards), 0)} | {
            f"shards, {args.latency * 1000:.0f} ms away, {workers} workers": ("shards", url, workers)
            for workers in WORKERS
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _, (name, (kind, root, workers)) in itertools.product(range(args.rounds), contestants.items()):
            data = corpus(kind, root, args, workers, Path(folder))
            seconds[name].append(timed(data, args.batches, Path(folder)))
        storage = Storage(url, "url", 60, 1)
        requests = alternating(ways_of_reading(storage, read_index(storage, Path(folder))), args.rounds)
        server.kill()  # whatever it does with signals, as it may have from whoever started this
    frames = args.batches * args.batch_size * args.clip_frames
    rows = [
        [name, frames / statistics.median(times), f"{ratio(seconds, name, 'shards'):.2f}"]
        for name, times in seconds.items()
    ]
    print(f"clips of {args.clip_frames} frames, {args.resolution} pixels, batches of {args.batch_size}\n")
    print(table(["", "frames/s", "time as a multiple of shards'"], rows))
    rows = [[name, statistics.median(times)] for name, times in requests.items()]
    print(f"\nall clips over HTTP, {args.latency * 1000:.0f} ms away, without decoding\n")
    print(table(["", "seconds"], rows))


def corpus(kind: str, root: str, args: argparse.Namespace, workers: int, folder: Path) -> Corpus:
    """The data of `conf/data/<kind>.yaml`."""
    chosen = OmegaConf.load(conf_dir() / "data" / f"{kind}.yaml")
    assert isinstance(chosen, DictConfig)
    values: dict[str, Any] = {
        "root": root, "resolution": args.resolution, "clip_frames": args.clip_frames, "batch_size": args.batch_size,
        "workers": workers, "max_bad_files": 100, **({"index": None} if kind == "videos" else {"cache": str(folder)}),
    }  # fmt: skip
    chosen.update(values)
    data: Corpus = build(chosen, "data")
    return data


def ways_of_reading(storage: Storage, index: ShardIndex) -> dict[str, Callable[[], object]]:
    """All clips, by ranges in an order of chance, and by whole shards."""
    ranges = [
        (shard.name, int(row["offset"]), int(row["offset"]) + int(row["bytes"]))
        for number, shard in enumerate(index.shards)
        for row in index.rows_of(number)
    ]
    random.Random(0).shuffle(ranges)
    return {
        "a range of bytes after the other": lambda: [storage.read(*one) for one in ranges],
        f"{IN_FLIGHT} ranges at once": lambda: [
            storage.read_many(ranges[n : n + IN_FLIGHT]) for n in range(0, len(ranges), IN_FLIGHT)
        ],
        "a whole shard after the other": lambda: [storage.read(s.name, 0, s.bytes) for s in index.shards],
    }


def timed(data: Corpus, batches: int, folder: Path) -> float:
    """Seconds for so many batches, after those that were read before anybody waited."""
    bad_files = BadFiles(folder / "bad_files.jsonl", 1.0, 0)
    loader = Loader(data.whole(bad_files), data.batch_size, data.workers, 0, bad_files, data.limits)
    with closing(loader.batches(0)) as stream:
        for _ in range(2 * data.workers + 1):
            next(stream)
        before = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return time.perf_counter() - before


if __name__ == "__main__":
    main()
