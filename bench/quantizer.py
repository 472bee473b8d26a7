"""Nearest codes and the codebook's sums: ours against the whole matrix of distances and one-hot products.

    python bench/quantizer.py [--latents 2048 65536] [--codes 1024 16384 262144] [--dimensions 8 256] [--rounds 3]

Time, and memory beyond inputs and results; the whole matrix is left out where it would take more than --most GiB.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import alternating, machine, ratio, table
from textbook import whole_matrix
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vqgan.quantizers.assignment import nearest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="+", default=[2048, 65536])
    parser.add_argument("--codes", type=int, nargs="+", default=[1024, 16384, 262144])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[8, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=float, default=4.0, help="GiB for the whole matrix")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = [
        row(*sizes, args.rounds, args.most, device)
        for sizes in itertools.product(args.latents, args.codes, args.dimensions)
    ]
    print(f"{machine()}\n")
    print(
        table(["latents", "codes", "dimension", "seconds", "times as fast", "MiB beyond", "sums, times as fast"], rows)
    )


def row(latents: int, codes: int, dimension: int, rounds: int, most: float, device: torch.device) -> list[object]:
    """One line of the table."""
    torch.manual_seed(0)
    z, codebook = torch.randn(latents, dimension, device=device), torch.randn(codes, dimension, device=device)
    contestants: dict[str, Callable[[], Tensor]] = {"ours": lambda: nearest(z, codebook)}
    fits = latents * codes * 4 <= most * 2**30
    if fits:
        contestants["whole"] = lambda: whole_matrix(z, codebook)
        different = int((contestants["whole"]() != contestants["ours"]()).sum())
        assert different == 0, f"{different} of {latents} codes differ"
    seconds = alternating(contestants, rounds)
    indices = nearest(z, codebook)
    sums: dict[str, Callable[[], Tensor]] = {"ours": lambda: torch.zeros_like(codebook).index_add_(0, indices, z)}
    if fits:
        sums["one-hot"] = lambda: F.one_hot(indices, codes).float().T @ z
    sum_seconds = alternating(sums, rounds)
    return [
        latents, codes, dimension, statistics.median(seconds["ours"]),
        f"{ratio(seconds, 'whole', 'ours'):.1f}" if fits else "", beyond(lambda: nearest(z, codebook), device) / 2**20,
        f"{ratio(sum_seconds, 'one-hot', 'ours'):.0f}" if fits else "",
    ]  # fmt: skip


def beyond(run: Callable[[], Tensor], device: torch.device) -> int:
    """The most bytes that were allocated at once while it ran."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    peak = now = 0
    for event in profiler.profiler.kineto_results.events() if profiler.profiler else []:
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


if __name__ == "__main__":
    main()
