"""Scores of resampled clusters; the definitions stand in `cmarr_lightning.analysis.statistics`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from cmarr_lightning.metrics import macro_f1, unweighted_average_recall, weighted_average_recall

__all__ = [
    "SCORES",
    "bootstrap",
    "bootstrap_recalls",
    "interval",
    "pooled_recalls",
    "pooled_scores",
]

SCORES = {"war": weighted_average_recall, "uar": unweighted_average_recall, "f1": macro_f1}
"""Key -> function of confusion counts (..., C, C)."""

_FEWEST = 5
_LIMITS = (0.025, 0.975)
_BLOCK = 2**22  # numbers held at a time


def pooled_scores(confusion: np.ndarray, num_incomplete: int) -> dict[str, np.ndarray]:
    """Score pooled counts and average over the seeds.

    Args:
        confusion: (..., S, K, C, C) counts of S seeds under K conditions.
        num_incomplete: How many of the conditions, from the first on, are incomplete.

    Returns:
        `war`, `uar` and `f1`, each (..., K + 1) in [0, 1]; the last column is the mean of the incomplete conditions.
    """
    scores = {}
    for name, score in SCORES.items():
        values = score(torch.from_numpy(np.asarray(confusion, dtype=np.float64))).mean(-2).numpy()
        mean = values[..., :num_incomplete].mean(-1, keepdims=True)
        scores[name] = np.concatenate([values, mean], axis=-1)
    return scores


def bootstrap(
    counts: np.ndarray, num_incomplete: int, *, resamples: int = 2000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Score resamples of whole clusters. The same seed draws the same clusters, whatever is counted in them.

    Args:
        counts: (G, S, K, C, C) of G clusters, see `ProtocolResults.cluster_counts`.
        num_incomplete: How many of the conditions, from the first on, are incomplete.
        resamples: R.
        seed: Seed of the draws.

    Returns:
        `war`, `uar` and `f1`, each (R, K + 1), see `pooled_scores`.
    """
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    blocks = [
        pooled_scores((weights @ flat).reshape(-1, *counts.shape[1:]), num_incomplete)
        for weights in _draws(len(counts), resamples, seed, _BLOCK // flat.shape[1])
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in SCORES}


def bootstrap_recalls(counts: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Get the recall of every class in resamples of whole clusters, averaged over the seeds.

    Args:
        counts: (G, S, K, C, C) of G clusters, see `ProtocolResults.cluster_counts`.
        resamples: R.
        seed: Seed of the draws; the same as in `bootstrap`.

    Returns:
        (R, K, C) in [0, 1]; NaN where a class was not drawn.
    """
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    return np.concatenate(
        [
            pooled_recalls((weights @ flat).reshape(-1, *counts.shape[1:]))
            for weights in _draws(len(counts), resamples, seed, _BLOCK // flat.shape[1])
        ]
    )


def pooled_recalls(confusion: np.ndarray) -> np.ndarray:
    """Get the recall (..., K, C) in [0, 1] of every class from pooled counts (..., S, K, C, C), mean over S seeds."""
    counts = torch.from_numpy(np.asarray(confusion, dtype=np.float64))
    recalls: np.ndarray = (counts.diagonal(dim1=-2, dim2=-1) / counts.sum(-1)).nanmean(-3).numpy()
    return recalls


def interval(drawn: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Get the limits of the 95 % interval.

    Args:
        drawn: (R, K) resampled values.
        clusters: How many there were to draw from.

    Returns:
        Lower and upper limits, (K,) each; NaN where fewer than 5 clusters say nothing about others of their kind.
    """
    if clusters < _FEWEST:
        low = high = np.full(drawn.shape[1], np.nan)
    else:
        low, high = np.quantile(drawn, _LIMITS, axis=0)
    return low, high


def _draws(clusters: int, resamples: int, seed: int, most: int) -> Iterator[np.ndarray]:
    """Yield (R', G) float64: how often each cluster is in each resample, R' at most `most`."""
    random = np.random.default_rng(seed)
    step = max(1, min(most, _BLOCK // clusters))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        drawn = random.integers(clusters, size=(count, clusters)) + clusters * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * clusters).reshape(count, clusters).astype(np.float64)
