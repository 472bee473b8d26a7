"""Intervals against an ordinary bootstrap over videos, and against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from vqgan.evaluation.bootstrap import MOST_NUMBERS, CodeUse, Interval, Mean, VideoWeights, entropy


def videos(count: int, seed: int) -> list[np.ndarray]:
    """Values of the frames of some videos; frames of one are much alike, and their mean is 20."""
    rng = np.random.default_rng(seed)
    return [20 + 3 * rng.normal() + 0.5 * rng.normal(size=rng.integers(5, 15)) for _ in range(count)]


def poisson_interval(values: list[np.ndarray], replicates: int, seed: int) -> Interval:
    weights, mean = VideoWeights(replicates, seed), Mean(replicates)
    for number, frames in enumerate(values):
        mean.add(float(frames.sum()), len(frames), weights.of(number))
    assert mean.value == pytest.approx(np.concatenate(values).mean())
    found = mean.interval(0.95)
    assert found is not None
    return found


def test_it_agrees_with_an_ordinary_bootstrap_over_videos() -> None:
    values = videos(200, 1)
    rng, means = np.random.default_rng(2), []
    for _ in range(4000):
        means.append(np.concatenate([values[i] for i in rng.integers(len(values), size=len(values))]).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    found = poisson_interval(values, 4000, 3)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Frames drawn one by one, as if they were independent, would give a third of the width."""
    hits = 0
    for trial in range(300):
        found = poisson_interval(videos(40, trial + 100), 400, trial)
        hits += found.low < 20 < found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_a_video_has_the_same_weights_whenever_it_comes() -> None:
    weights = VideoWeights(50, 4)
    first, second = weights.of(0).copy(), weights.of(1).copy()
    assert (weights.of(0) == first).all()
    assert (first != second).any()
    assert (VideoWeights(50, 5).of(0) != first).any()


def test_clips_of_a_video_are_drawn_together() -> None:
    values, weights = videos(9, 5), VideoWeights(100, 6)
    whole, parts = Mean(100), Mean(100)
    for number, frames in enumerate(values):
        whole.add(float(frames.sum()), len(frames), weights.of(number))
        for part in (frames[:2], frames[2:]):
            parts.add(float(part.sum()), len(part), weights.of(number))
    np.testing.assert_allclose(whole.totals, parts.totals)
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_entropy_equals_scipys() -> None:
    counts = np.random.default_rng(7).integers(0, 5, size=(32, 4))
    np.testing.assert_allclose(entropy(counts), scipy.stats.entropy(counts, base=2, axis=0))


def code_use(count: int, seed: int, replicates: int = 200) -> tuple[CodeUse, float]:
    """The codes of some videos, each of which prefers some of 64; and the entropy of all there could be."""
    liking = 0.5 / np.arange(1, 65) ** 0.7
    rng, use, weights = np.random.default_rng(seed), CodeUse(64, 1, replicates), VideoWeights(replicates, seed)
    for number in range(count):
        use.add(rng.multinomial(100, rng.dirichlet(liking))[None], weights.of(number))
    return use, float(scipy.stats.entropy(liking, base=2))


def test_the_interval_of_the_entropy_holds_the_truth() -> None:
    """The percentiles themselves lie below it in nearly all of these trials."""
    hits, percentiles = 0, 0
    for seed in range(100):
        use, truth = code_use(40, seed)
        found = use.interval(0.95)
        assert found is not None
        assert found.low <= use.entropy <= found.high < 6.0
        hits += found.low <= truth <= found.high
        percentiles += np.quantile(entropy(use.drawn[0]), 0.975) > truth
    assert 88 <= hits <= 99
    assert percentiles < 10


def test_counts_are_exact_and_usage_is_theirs() -> None:
    use, weights = CodeUse(8, 1, 10), VideoWeights(10, 0)
    use.add(np.array([[5, 0, 0, 1, 0, 0, 0, 2]]), weights.of(0))
    use.add(np.array([[1, 0, 0, 0, 0, 0, 0, 0]]), weights.of(1))
    assert use.counts.tolist() == [[6, 0, 0, 1, 0, 0, 0, 2]]
    assert use.usage == 3 / 8
    np.testing.assert_array_equal(use.drawn[0, 0], 5 * weights.of(0) + weights.of(1))


def test_a_large_codebook_has_no_interval_and_takes_no_memory() -> None:
    use = CodeUse(MOST_NUMBERS // 1000 + 1, 1, 1000)
    use.add(np.ones(use.counts.shape, dtype=np.int64), VideoWeights(1000, 0).of(0))
    assert use.interval(0.95) is None
    assert use.drawn.nbytes == 0
    assert use.entropy == pytest.approx(np.log2(use.counts.size))


def test_of_several_codes_a_position_each_has_its_entropy() -> None:
    """Together they would look like one source with more of it."""
    use, weights = CodeUse(4, 2, 50), VideoWeights(50, 0)
    counts = np.array([[8, 0, 0, 0], [0, 4, 4, 0]])
    for video in range(3):
        use.add(counts, weights.of(video))
    assert use.entropy == pytest.approx((0.0 + 1.0) / 2)
    assert use.usage == 3 / 8
    found = use.interval(0.9)
    assert found is not None
    assert found.low <= 0.5 <= found.high


def test_no_replicates_no_interval() -> None:
    mean = Mean(0)
    mean.add(3.0, 2, VideoWeights(0, 0).of(0))
    assert mean.value == 1.5
    assert mean.interval(0.95) is None
