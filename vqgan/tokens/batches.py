"""Batches of tokens for a transformer: whole frames of videos with the same grid."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt
from torch import Tensor

from vqgan.errors import DataError, check

Read = Callable[[int], UInt[np.ndarray, "time rows columns *depth"]]


@dataclass(frozen=True)
class TokenBatch:
    """Codes of some clips, and the same as lines: time by time, row by row, the codes of a position one by one."""

    codes: Int[Tensor, "batch time rows columns *depth"]  # int64
    videos: Int[Tensor, "batch"]  # the number of each one's video in the folder
    times: Int[Tensor, "batch"]  # of each one's first codes in its video

    @property
    def inputs(self) -> Int[Tensor, "batch length"]:
        """All codes of a line but the last."""
        return self._lines[:, :-1]

    @property
    def targets(self) -> Int[Tensor, "batch length"]:
        """What follows each of the inputs."""
        return self._lines[:, 1:]

    @property
    def places(self) -> Int[Tensor, "length axes"]:
        """Where each of the inputs stands: time, row, column[, depth], of a line that begins at 0."""
        axes = [torch.arange(size) for size in self.codes.shape[1:]]
        return torch.stack([axis.reshape(-1) for axis in torch.meshgrid(axes, indexing="ij")], 1)[:-1]

    @cached_property
    def _lines(self) -> Int[Tensor, "batch line"]:
        return self.codes.flatten(1)


def batches(
    folder: Path, shapes: Sequence[Sequence[int]], read: Read, times: int, batch_size: int, seed: int, start: int
) -> Iterator[TokenBatch]:
    """Random clips without end; see `Tokens.batches`.

    Args:
        folder: of the videos' codes.
        shapes: of each video's, (time, rows, columns[, depth]).
        read: gives those of a video by its number.
        times: of a clip.
        batch_size: clips.
        seed: of all draws.
        start: the number of the first batch.
    """
    check(times > 0, "times", times, "positive")
    check(batch_size > 0, "batch_size", batch_size, "positive")
    grids: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        if shape[0] >= times:
            grids.setdefault(tuple(shape[1:]), []).append(number)
    if not grids:
        longest = max((shape[0] for shape in shapes), default=0)
        raise DataError(f"{folder} has no video of {times} times of codes: the longest has {longest}.")
    # Each place where a clip can begin is as likely as any other, and all clips of a batch are of one grid.
    starts = {grid: list(accumulate(shapes[n][0] - times + 1 for n in of)) for grid, of in grids.items()}
    shares = np.array([ends[-1] for ends in starts.values()])
    return _drawn(read, times, batch_size, (seed, start), list(zip(grids.values(), starts.values())), shares)


def _drawn(
    read: Read,
    times: int,
    batch_size: int,
    at: tuple[int, int],
    grids: list[tuple[list[int], list[int]]],
    shares: Int[np.ndarray, "grids"],
) -> Iterator[TokenBatch]:
    seed, step = at
    while True:
        rng = np.random.default_rng([seed, step])  # so a run that goes on draws what it would have drawn
        numbers, ends = grids[rng.choice(len(grids), p=shares / shares.sum())]
        clips, videos, firsts = [], [], []
        for place in rng.integers(ends[-1], size=batch_size).tolist():
            at_video = bisect.bisect_right(ends, place)
            first = place - (ends[at_video - 1] if at_video else 0)
            codes = read(numbers[at_video])[first : first + times]
            clips.append(torch.from_numpy(codes.astype(np.int64)))
            videos.append(numbers[at_video])
            firsts.append(first)
        yield TokenBatch(torch.stack(clips), torch.tensor(videos), torch.tensor(firsts))
        step += 1
