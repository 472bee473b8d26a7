"""How fast batches come from reading processes into this one, beside torch's DataLoader.

    python bench/handover.py [--megabytes 50] [--workers 2] [--batches 40] [--rounds 5]

A batch is stacked of ready clips where it is read, so that nothing but handing it over takes long, and one byte of
each page is looked at where it comes. A round of ours begins new processes, as a round of torch's does; the first batch
is not timed. torch's own function stacks into shared memory; what `torch.stack` makes, as of batches that are more
than tensors, is copied there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from jaxtyping import UInt8
from measure import machine, ratio, table
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from vqgan.data import Limits
from vqgan.data.reading.workers import Watch, supervised

CLIPS = 8  # of a batch
PAGE = 4096  # bytes
Clips = Subset[UInt8[Tensor, "bytes"]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50, help="of a batch")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=40, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clip = torch.randint(0, 256, (args.megabytes * 10**6 // CLIPS,), dtype=torch.uint8)
    count = CLIPS * (args.batches + 1)
    clips: Clips = Subset([clip] * count, range(count))  # type: ignore[arg-type]  # a list will do
    options = {"batch_size": CLIPS, "num_workers": args.workers, "multiprocessing_context": "fork"}
    contestants: dict[str, Callable[[], Iterable[Tensor]]] = {
        "vqgan": lambda: ours(clips, args.workers),
        "DataLoader": lambda: DataLoader(clips, **options),
        "DataLoader, torch.stack": lambda: DataLoader(clips, collate_fn=torch.stack, **options),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _, (name, batches) in itertools.product(range(args.rounds), contestants.items()):
        seconds[name].append(timed(batches()))
    rows = [
        [name, args.megabytes * args.batches / statistics.median(seconds[name]), ratio(seconds, name, "vqgan")]
        for name in contestants
    ]
    print(f"{machine()}\n\nbatches of {args.megabytes} MB, {args.workers} workers\n")
    print(table(["loader", "MB/s", "time as a multiple of ours"], rows))


def ours(clips: Clips, workers: int) -> Iterable[Tensor]:
    """The same batches, as training gets them."""
    jobs = (list(range(first, first + CLIPS)) for first in range(0, len(clips), CLIPS))
    watch = Watch(workers, Limits(seconds=60, megabytes=1024, stall_seconds=60))
    return supervised(clips, jobs, watch, lambda *_: "", default_collate)


def timed(batches: Iterable[Tensor]) -> float:
    """Seconds of all but the first."""
    rest = iter(batches)
    next(rest)
    before = time.perf_counter()
    for batch in rest:
        batch.flatten()[::PAGE].sum()
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
