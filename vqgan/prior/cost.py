"""What videos cost under a prior: bits of each of their times, teacher-forced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from vqgan.prior.data import Place, Videos
from vqgan.prior.transformer import Transformer
from vqgan.runtime.collectives import gather, share_of

Costs = dict[int, Float[np.ndarray, "times"]]  # of each video the bits of each time; NaN where it was not measured


@torch.no_grad()
def costs(prior: Transformer, videos: Videos, places: Sequence[Place], batch_size: int) -> Costs:
    """The bits of all codes of each time at some places, several processes each a share; changes no state.

    -log2 p(code | those before it in the run), added up in float64.

    Returns:
        The same in each process.
    """
    was_training, device = prior.training, prior.bias.device
    prior.eval()
    found: list[tuple[int, int, list[float]]] = []  # video, first time, bits
    try:
        for _, batch in share_of(videos.batches(places, batch_size)):
            clips = videos.clips(batch).to(device)
            nats = prior(clips.codes, clips.begins, clips.side).double().sum((2, 3, 4)).cpu()
            for place, bits in zip(batch, (nats / math.log(2)).tolist()):
                found.append((place.video, place.first + place.counted, bits[place.counted :]))
    finally:
        prior.train(was_training)
    of_videos: Costs = {}
    rows: list[Any] = [row for part in gather(found) for row in part]
    for video, first, bits in sorted(rows):
        of_video = of_videos.setdefault(video, np.full(videos.shape(video)[0], np.nan))
        of_video[first : first + len(bits)] = bits
    return of_videos


def codes_of_a_time(videos: Videos, video: int) -> int:
    """How many codes a time of a video has."""
    _, rows, columns = videos.shape(video)
    return rows * columns * videos.tokens.depth
