r"""Means, pooled scores, bootstrap intervals and paired tests.

Let :math:`n^{sf}_{ij}` be the confusion counts of seed s and fold f under one condition.

* **Mean and standard deviation**: of the score (WAR, UAR or macro F1 as in `cmarr_lightning.metrics`) of each run,
  over all folds and seeds; the deviation is that of a sample (divisor R - 1). A class that does not occur in a
  fold has no recall and is left out of that fold's UAR.
* **Pooled**: the score of :math:`\sum_f n^{sf}_{ij}`, the folds of one seed taken as one large test set, then the
  mean over the seeds. Only seeds count that have all folds found in the results.
* **mean of incomplete**: the mean of a score over the incomplete conditions, for pooled scores the mean of
  the pooled scores.
* **Interval**: utterances of one speaker (or one session) are not independent, so whole clusters are drawn, with
  replacement, as many as there are; what is drawn is pooled over the folds and averaged over the seeds like the
  score itself. The limits are percentiles of the resampled scores. A resample without a class leaves that class
  out. With few clusters (IEMOCAP: 10 speakers, 5 sessions) such intervals are somewhat too narrow; with fewer than
  5 there is none.
* **Paired test**: the interval is that of the difference, both methods scored on the *same* drawn clusters. p comes
  from a permutation test: if the methods were equally good, their predictions could be swapped cluster by cluster; p
  is the share of all :math:`2^G` swaps (of 10 000 drawn ones beyond 12 clusters) after which the difference is at
  least as large as the observed one. It is never below :math:`2^{1-G}`, and exact however few the clusters (where a
  bootstrap is too sure of itself) if they can be swapped one by one. Speakers of one session, who talk with each other
  and are scored by the same networks, may differ alike; then p is too small, and that of swapped sessions
  (``cluster="session"``) is the careful one. p values are not corrected for the number of conditions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmarr_lightning.analysis.bootstrap import (
    SCORES,
    bootstrap,
    interval,
    pooled_scores,
)
from cmarr_lightning.analysis.protocol import Cluster, ProtocolResults
from cmarr_lightning.analysis.swapping import swapping_test
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.errors import InputError

__all__ = ["paired_test", "refuse_unlike", "summarize"]

_SUMMARY = ("condition", "metric", "mean", "std", "pooled", "low", "high")


def summarize(
    results: ProtocolResults,
    *,
    intervals: bool = True,
    cluster: Cluster | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Summarise the test scores of a protocol.

    Args:
        results: The finished runs.
        intervals: Compute the intervals, which needs counts by cluster; otherwise `low` and `high` are NaN.
        cluster: What is drawn as a whole; `results.cluster` by default.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        One row per condition and metric: condition, metric, mean, std, pooled, low, high (95 % interval of pooled),
        runs, n (utterances scored per seed), cluster, clusters (what was drawn, of how many). Scores in [0, 1].
        std is NaN for a single run; pooled is NaN while no seed has all folds.

    Raises:
        InputError: Intervals without predictions.
    """
    test = results.table[results.table["stage"] == "test"]
    table = test.groupby(["condition", "metric"], sort=False)["value"].agg(["mean", "std", "size"]).reset_index()
    table = table.rename(columns={"size": "runs"})
    names = [*results.all_conditions, MISSING_MEAN]
    counts = results.pool(results.confusion)
    num_incomplete = len(results.conditions) - 1
    low = high = pooled = {metric: np.full(len(names), np.nan) for metric in SCORES}
    rows, clusters = np.zeros(len(names), dtype=np.int64), 0
    if len(counts):
        pooled = pooled_scores(counts, num_incomplete)
        rows = np.append(counts[0].sum((-2, -1)), counts[0, 0].sum())
    if intervals and len(counts):
        cluster = cluster or results.cluster
        drawn_names, clustered = results.cluster_counts(cluster)
        drawn, clusters = bootstrap(clustered, num_incomplete, resamples=resamples, seed=seed), len(drawn_names)
        limits = {metric: interval(values, clusters) for metric, values in drawn.items()}
        low, high = ({metric: pair[side] for metric, pair in limits.items()} for side in (0, 1))
    extra = pd.DataFrame(
        [
            (name, metric, pooled[metric][k], low[metric][k], high[metric][k], rows[k])
            for k, name in enumerate(names)
            for metric in SCORES
        ],
        columns=["condition", "metric", "pooled", "low", "high", "n"],
    )
    table = extra.merge(table, on=["condition", "metric"], how="left")
    table = table.assign(cluster=cluster or "", clusters=clusters)
    return table[[*_SUMMARY, "runs", "n", "cluster", "clusters"]]


def paired_test(
    first: ProtocolResults,
    second: ProtocolResults,
    *,
    cluster: Cluster | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two methods on the same rows, cluster by cluster.

    Args:
        first: Results with predictions or counts by cluster.
        second: Such results too; the number of seeds may differ.
        cluster: What is drawn as a whole; `first.cluster` by default.
        resamples: Of the bootstrap, and of the permutations beyond 12 clusters.
        seed: Of both.

    Returns:
        One row per condition and metric: condition, metric, first, second (pooled scores), difference (second -
        first), low, high (95 % interval of the difference), p (two-sided), n, cluster, clusters.

    Raises:
        InputError: Different data, classes, conditions or rows, or no predictions.
    """
    refuse_unlike(first, second)
    cluster = cluster or first.cluster
    num_incomplete = len(first.conditions) - 1
    names, counts = zip(*(results.cluster_counts(cluster) for results in (first, second)), strict=True)
    named = first.has_names and second.has_names
    totals = [each[:, 0].sum(-1) for each in counts]
    if (named and names[0] != names[1]) or not np.array_equal(*totals):
        raise InputError(
            f"{first.folder} and {second.folder}: the {cluster}s of the utterances differ",
            remedy="compare results of the same feature store",
        )
    drawn = [bootstrap(each, num_incomplete, resamples=resamples, seed=seed) for each in counts]
    p = swapping_test(counts[0], counts[1], num_incomplete, resamples=resamples, seed=seed)
    total = [pooled_scores(each.sum(0), num_incomplete) for each in counts]
    rows, clusters = counts[0][:, 0].sum((0, -2, -1)), len(names[0])
    parts = []
    for metric in SCORES:
        differences = drawn[1][metric] - drawn[0][metric]
        low, high = interval(differences, clusters)
        columns = {
            "condition": [*first.all_conditions, MISSING_MEAN],
            "metric": metric,
            "first": total[0][metric],
            "second": total[1][metric],
            "difference": total[1][metric] - total[0][metric],
            "low": low,
            "high": high,
            "p": p[metric],
            "n": [*rows, rows[0]],
            "cluster": cluster,
            "clusters": clusters,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def refuse_unlike(first: ProtocolResults, second: ProtocolResults) -> None:
    """Refuse to lay results beside each other that were not scored on the same rows of the same data.

    Where predictions are kept the utterances are compared one by one, otherwise their number per class.

    Raises:
        InputError: Different data, classes or their order, conditions or rows; the message says which.
    """
    pair = f"{first.folder} and {second.folder}"
    for what, one, other in (
        ("protocols", first.about["protocol"], second.about["protocol"]),
        ("data checksums", first.about["data_checksum"], second.about["data_checksum"]),
        ("classes", first.class_names, second.class_names),
        ("conditions", first.all_conditions, second.all_conditions),
    ):
        if one != other:
            raise InputError(f"{pair}: different {what}: {one} and {other}", remedy="compare results of the same data")
    remedy = "test both on the same folds and filters"
    if not (first.has_predictions and second.has_predictions):
        counts = [results.pool(results.confusion)[:1].sum(-1) for results in (first, second)]
        if not np.array_equal(*counts):
            raise InputError(f"{pair}: different numbers of test utterances", remedy=remedy)
        return
    rows = [_rows(results) for results in (first, second)]
    if not rows[0].equals(rows[1]):
        odd = sorted(set(rows[0].index.get_level_values(0)) ^ set(rows[1].index.get_level_values(0)))
        named = f", e.g. {odd[0]!r}" if odd else ", or their labels"
        raise InputError(f"{pair}: different test utterances{named}", remedy=remedy)


def _rows(results: ProtocolResults) -> pd.Series[str]:
    """List what one seed scores, (utterance, condition) -> true class, in order."""
    seeds = results.whole_seeds
    if not seeds:
        raise InputError(f"{results.folder}: no seed has all folds", remedy="run the command again to finish them")
    table = results.predictions
    chosen = table[table["seed"] == seeds[0]]
    return chosen.set_index(["utterance_id", "condition"])["true"].sort_index()
