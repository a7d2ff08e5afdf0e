"""Paired permutation test by clusters; its definition stands in `cmarr_lightning.analysis.statistics`."""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

import numpy as np

from cmarr_lightning.analysis.bootstrap import SCORES, pooled_scores

__all__ = ["swapping_test"]

_EVERY = 12
"""Up to so many clusters all swaps are tried."""
_BLOCK = 2**22  # numbers held at a time
_TIE = 1e-12


def swapping_test(
    first: np.ndarray, second: np.ndarray, num_incomplete: int, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Swap the predictions of two methods cluster by cluster and see how often they then differ as much.

    Args:
        first: (G, S, K, C, C) confusion counts of G clusters, S seeds and K conditions.
        second: (G, S', K, C, C).
        num_incomplete: How many of the conditions, from the first on, are incomplete.
        resamples: Swaps that are drawn when there are too many clusters to try them all.
        seed: Of the draws.

    Returns:
        `war`, `uar` and `f1`, each (K + 1,): two-sided p, in (0, 1].
    """
    seeds = lcm(first.shape[1], second.shape[1])  # every seed as often as before, so that no mean changes
    one, other = (np.tile(a, (1, seeds // a.shape[1], 1, 1, 1)).astype(np.float64) for a in (first, second))
    total, shape = (one + other).sum(0), one.shape[1:]
    moved = (other - one).reshape(len(one), -1)
    extreme, count = {metric: 0.0 for metric in SCORES}, 0
    observed = _difference(one.sum(0)[None], total, num_incomplete)
    for swaps in _swaps(len(one), resamples, seed, max(1, _BLOCK // moved.shape[1])):
        swapped = one.sum(0) + (swaps @ moved).reshape(-1, *shape)
        difference = _difference(swapped, total, num_incomplete)
        for metric in SCORES:
            extreme[metric] += (np.abs(difference[metric]) >= np.abs(observed[metric]) - _TIE).sum(0)
        count += len(swaps)
    return {metric: np.asarray(extreme[metric]) / count for metric in SCORES}


def _difference(first: np.ndarray, total: np.ndarray, num_incomplete: int) -> dict[str, np.ndarray]:
    """Score the counts (R, S, K, C, C) of the first method, and what is left of the total for the second."""
    mine, theirs = (pooled_scores(counts, num_incomplete) for counts in (first, total - first))
    return {metric: theirs[metric] - mine[metric] for metric in SCORES}


def _swaps(clusters: int, resamples: int, seed: int, most: int) -> Iterator[np.ndarray]:
    """Yield (R, G) of 0 and 1, 1 = swapped. What is observed, nothing swapped, is among them."""
    if clusters <= _EVERY:
        every = np.arange(2 ** (clusters - 1))  # the other half swaps the methods' names and gives the same
        swaps = (every[:, None] >> np.arange(clusters)) & 1
    else:
        swaps = np.random.default_rng(seed).integers(2, size=(resamples + 1, clusters))
        swaps[0] = 0
    for start in range(0, len(swaps), most):
        yield swaps[start : start + most].astype(np.float64)
