"""How much of the differences between runs each key explains by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqgan.reports.varied import Key

FEWEST = 8  # runs, below which chance explains as much as any key
MOST_GROUPS, RUNS_PER_GROUP = 8, 4  # that many different numbers are put into
SHUFFLES = 1000
CHANCE = 0.95  # of all random orders
Ranks = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The part that a key has in the differences between runs.

    Args:
        names: of the key, or of several whose values always changed together, so that they cannot be told apart.
        share: of the variance of the ranks, in [0, 1]; None for a key whose values are nearly all different names.
        by_chance: what 95 % of random orders of the same results stay below.
        groups: of runs that were compared.
        grouped: whether neighbouring values were put together.
    """

    names: Sequence[str]
    share: float | None
    by_chance: float
    groups: int
    grouped: bool


def importances(keys: Sequence[Key], results: Sequence[float]) -> list[Importance]:
    """The importance of each key for the results, the largest first; none for fewer than 8 runs.

    It is the first-order effect: the share of the variance of the results' ranks that lies between the groups of runs
    with the same value (the correlation ratio, eta squared, which for one key is what fANOVA calls its main effect;
    Hutter et al. 2014), corrected for the number of groups, which explain something by chance alone (epsilon squared;
    Kelley 1935). Ranks, as in the test of Kruskal and Wallis, do not let one run that went wrong count for all the
    others. A number with many different values is cut into up to 8 groups of neighbours of about the same size.

    Args:
        keys: with the values of the runs.
        results: of the same runs.
    """
    if len(results) < FEWEST:
        return []
    ranks = ranks_of(results)
    shuffled = np.random.default_rng(0).permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    together: dict[tuple[int, ...], list[Key]] = {}
    for key in keys:
        together.setdefault(_groups(key), []).append(key)
    found = [_importance(same, groups, ranks, shuffled) for groups, same in together.items() if len(set(groups)) > 1]
    return sorted(found, key=lambda one: -1.0 if one.share is None else one.share, reverse=True)


def ranks_of(values: Sequence[float]) -> Ranks:
    """Ranks from 1 for the lowest; equal values share the mean of theirs."""
    _, places, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    after = np.cumsum(counts)
    ranks: Ranks = (after - (counts - 1) / 2)[places]
    return ranks


def _importance(keys: Sequence[Key], groups: Sequence[int], ranks: Ranks, shuffled: Ranks) -> Importance:
    """Of keys by which the runs fall into the same groups."""
    names, count = [key.name for key in keys], len(set(groups))
    grouped = any(len(set(key.values)) > count for key in keys)
    if 2 * count > len(ranks):
        return Importance(names, None, 1.0, count, grouped)
    share = float(_explained(groups, ranks[None])[0])
    return Importance(names, share, float(np.quantile(_explained(groups, shuffled), CHANCE)), count, grouped)


def _groups(key: Key) -> tuple[int, ...]:
    """The group of each run, numbered as they come: by its value, or with its neighbours where the values are many."""
    numbers, count = key.numbers, len(key.values)
    parts: Sequence[object] = key.values
    if numbers is not None and 2 * len(set(numbers)) > count:
        bins = min(MOST_GROUPS, max(2, count // RUNS_PER_GROUP))
        parts = ((ranks_of(numbers) - 0.5) / count * bins).astype(int).tolist()
    numbered: dict[object, int] = {}
    return tuple(numbered.setdefault(part, len(numbered)) for part in parts)


def _explained(groups: Sequence[int], ranks: Ranks) -> Ranks:
    """Epsilon squared for rows of ranks, all of the same values: 1 - (1 - η²)(n - 1)/(n - k), at least 0."""
    n, k = ranks.shape[1], max(groups) + 1
    members = np.eye(k)[list(groups)]
    mean = ranks[0].mean()
    total = float(((ranks[0] - mean) ** 2).sum())
    if total == 0:
        return np.zeros(len(ranks))
    counts = members.sum(axis=0)
    between = ((ranks @ members / counts - mean) ** 2 * counts).sum(axis=1)
    explained: Ranks = np.maximum(1 - (1 - between / total) * (n - 1) / (n - k), 0)
    return explained
