"""How far a measured value may be off: a bootstrap over videos that keeps sums alone, whatever there is of data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MOST_NUMBERS = 2**24  # kept for the interval of code use: replicates × codebook size
REPLICATES_AT_ONCE = 64
Weights = Int[np.ndarray, "replicates"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


class VideoWeights:
    """How often each replicate draws each video.

    An ordinary bootstrap draws as many videos as there are, with replacement, so all of them must be known at once.
    Here each video is drawn a Poisson(1) number of times by itself, which needs one pass and no memory, and differs
    only in that the number of draws is not fixed; means are ratios of sums, in which that cancels (Hanley and
    MacGibbon 2006, doi:10.1016/j.cmpb.2006.04.006; Chamandy et al. 2012, Google, "Estimating uncertainty for massive
    data streams"). Videos are drawn, not frames, since frames of one video are much alike.

    Args:
        replicates: how many.
        seed: weights are a function of it and the video's number.
    """

    def __init__(self, replicates: int, seed: int) -> None:
        self.replicates, self.seed = replicates, seed
        self.last: tuple[int, Weights] = (-1, np.zeros(replicates, dtype=np.int64))

    def of(self, video: int) -> Weights:
        """The draws of a video, counted from 0."""
        if video != self.last[0]:
            self.last = video, np.random.default_rng([self.seed, video]).poisson(1.0, self.replicates)
        return self.last[1]


class Mean:
    """A mean over frames, say, and what it is in each replicate."""

    def __init__(self, replicates: int) -> None:
        self.total, self.count = 0.0, 0.0
        self.totals, self.counts = np.zeros(replicates), np.zeros(replicates)

    def add(self, total: float, count: float, weights: Weights) -> None:
        """Take the sum of `count` values, or of what comes to so many seconds, of one video."""
        self.total, self.count = self.total + total, self.count + count
        self.totals += weights * total
        self.counts += weights * count

    @property
    def value(self) -> float:
        """The mean of all values."""
        return self.total / self.count

    def interval(self, confidence: float) -> Interval | None:
        """The percentile interval; None if no replicate holds a video."""
        means = self.totals[self.counts > 0] / self.counts[self.counts > 0]
        return _percentiles(means, confidence) if len(means) else None


class CodeUse:
    """How often each code is chosen, exactly, and the entropy of that with its interval.

    Of several codes a position each is counted by itself: what is told is a mean over them.

    Args:
        codes: of the codebook.
        depth: codes of a position.
        replicates: if replicates × all of these are more than 2²⁴ there is no interval.
    """

    def __init__(self, codes: int, depth: int, replicates: int) -> None:
        self.counts: Int[np.ndarray, "depth codes"] = np.zeros((depth, codes), dtype=np.int64)
        # Code by code: a video uses few of them, whose rows lie together.
        self.drawn = np.zeros((depth, codes, replicates if depth * codes * replicates <= MOST_NUMBERS else 0))

    def add(self, counts: Int[np.ndarray, "depth codes"], weights: Weights) -> None:
        """Take the codes of one video, or of a part of it."""
        self.counts += counts
        if self.drawn.size:
            for drawn, of_one in zip(self.drawn, counts):
                used = of_one.nonzero()[0]
                drawn[used] += np.outer(of_one[used], weights)

    @property
    def usage(self) -> float:
        """Share of the codes that are used at all."""
        return float((self.counts > 0).mean())

    @property
    def entropy(self) -> float:
        """In bits per token: 0 if one code is used, log2 of the codebook's size if all are used alike."""
        return float(np.mean([entropy(counts[:, None])[0] for counts in self.counts]))

    def interval(self, confidence: float) -> Interval | None:
        """The basic interval of the entropy; None if it has none.

        A sample has a lower entropy than what it is drawn from, and a replicate, which is a sample of the sample, has a
        lower one again: the percentiles would lie too low by twice that. The basic interval, 2·value minus them, puts
        it right (Davison and Hinkley 1997, section 5.2). It never leaves out the value, nor goes beyond log2 of the
        codebook's size.
        """
        drawn = self.drawn[:, :, self.drawn[0].sum(0) > 0]
        if not drawn.size:
            return None
        parts = [
            np.mean([entropy(of_one[:, i : i + REPLICATES_AT_ONCE]) for of_one in drawn], axis=0)
            for i in range(0, drawn.shape[2], REPLICATES_AT_ONCE)
        ]
        found, value = _percentiles(np.concatenate(parts), confidence), self.entropy
        low, high, most = 2 * value - found.high, 2 * value - found.low, np.log2(drawn.shape[1])
        return Interval(max(0.0, min(low, value)), min(float(most), max(high, value)))


def entropy(
    counts: Float[np.ndarray, "codes samples"] | Int[np.ndarray, "codes samples"],
) -> Float[np.ndarray, "samples"]:
    """Entropy in bits of each column of counts, none of them all zero: -Σ p·log2 p."""
    shares = counts / counts.sum(0)
    return -(shares * np.log2(shares, where=shares > 0, out=np.zeros_like(shares))).sum(0)


def _percentiles(values: Float[np.ndarray, "values"], confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
