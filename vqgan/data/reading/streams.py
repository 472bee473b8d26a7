"""Videos dealt out to the processes that read them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence


def dealt_out(videos: Iterable[int], sizes: Sequence[int], count: int) -> list[list[int]]:
    """Videos, in their order, dealt out to `count` streams so that each has about as much: of `sizes`, by number."""
    streams: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for video in videos:
        lightest = loads.index(min(loads))
        streams[lightest].append(video)
        loads[lightest] += sizes[video]
    return streams


def in_turn(
    streams: Sequence[Sequence[int]], counts: Sequence[int], firsts: Callable[[int], Iterable[int]]
) -> Iterator[tuple[int, int] | None]:
    """One batch of each stream after the other: reading processes take them in turn, so each goes on in its video.

    None stands for a stream that is over. `firsts` says where the batches of so many frames begin.
    """

    def jobs(videos: Sequence[int]) -> Iterator[tuple[int, int]]:
        return ((video, first) for video in videos for first in firsts(counts[video]))

    return itertools.chain.from_iterable(itertools.zip_longest(*map(jobs, streams)))
