"""Videos dealt out to the processes that read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence


def in_turn(
    streams: Sequence[Sequence[int]], counts: Sequence[int], batch_frames: int
) -> Iterator[tuple[int, int] | None]:
    """One batch of each stream after the other: reading processes take them in turn, so each goes on in its video.

    None stands for a stream that is over.
    """

    def jobs(videos: Sequence[int]) -> Iterator[tuple[int, int]]:
        return ((video, first) for video in videos for first in range(0, counts[video], batch_frames))

    return itertools.chain.from_iterable(itertools.zip_longest(*map(jobs, streams)))
