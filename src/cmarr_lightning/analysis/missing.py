"""What each missing modality costs, for each class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmarr_lightning.analysis.bootstrap import (
    bootstrap_recalls,
    interval,
    pooled_recalls,
)
from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.style import look_of
from cmarr_lightning.modalities import condition_name

__all__ = ["MEAN", "missing_costs", "plot_missing_costs", "session_confusions"]

MEAN = "mean of classes (UAR)"
"""Name of the row that averages the classes."""


def missing_costs(results: ProtocolResults, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compute by how much the recall of each class falls when one modality is missing.

    Recalls are pooled over the folds and averaged over the seeds; intervals and clusters as in
    `cmarr_lightning.analysis.statistics`, the same resamples for both conditions.

    Args:
        results: With predictions.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        One row per missing modality and class, then `MEAN`: missing, class, complete and without (recall in [0, 1]),
        cost (complete - without), low, high (95 % interval of the cost).

    Raises:
        InputError: No predictions.
    """
    clusters, counts = results.cluster_counts(results.cluster)
    recalls = _with_mean(pooled_recalls(counts.sum(0)))
    drawn = _with_mean(bootstrap_recalls(counts, resamples=resamples, seed=seed))
    modalities = list(results.about["modalities"])
    complete = results.all_conditions.index(condition_name(modalities))
    parts = []
    for modality in modalities:
        without = results.all_conditions.index(condition_name([m for m in modalities if m != modality]))
        low, high = interval(drawn[:, complete] - drawn[:, without], len(clusters))
        columns = {
            "missing": modality,
            "class": [*results.class_names, MEAN],
            "complete": recalls[complete],
            "without": recalls[without],
            "cost": recalls[complete] - recalls[without],
            "low": low,
            "high": high,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def plot_missing_costs(costs: pd.DataFrame) -> Figure:
    """Draw the costs with their intervals: one line per class, one marker per missing modality."""
    classes, modalities = (list(costs[column].unique()) for column in ("class", "missing"))
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(classes)), layout="constrained", dpi=120)
    axis = figure.subplots()
    step = 0.7 / len(modalities)
    for i, (modality, look) in enumerate(look_of(modalities).items()):
        rows = 100 * costs[costs["missing"] == modality].set_index("class").loc[classes, ["cost", "low", "high"]]
        limits = np.abs(rows[["low", "high"]].to_numpy().T - rows["cost"].to_numpy())
        place = np.arange(len(classes)) + (i - (len(modalities) - 1) / 2) * step
        axis.errorbar(
            rows["cost"],
            place,
            xerr=limits,
            fmt=look.marker,
            color=look.color,
            ms=5,
            capsize=2.5,
            label=f"no {modality}",
        )
    axis.axvline(0, color="0.5", lw=0.8)
    axis.set_yticks(range(len(classes)), classes, fontsize=9)
    axis.set_ylim(len(classes) - 0.5, -0.5)
    axis.set_xlabel("recall lost, percentage points (95 % interval)", fontsize=9)
    axis.grid(axis="x", color="0.88", lw=0.6)
    figure.legend(loc="outside upper center", ncols=len(modalities), fontsize=8, frameon=False)
    return figure


def session_confusions(results: ProtocolResults, condition: str) -> tuple[list[str], np.ndarray]:
    """Count confusions per session under one condition, over all seeds.

    Returns:
        The names of the G sessions and counts (G, C, C), rows = true classes.

    Raises:
        InputError: No predictions, or utterances without a session.
    """
    sessions, counts = results.cluster_counts("session")
    return sessions, counts[:, :, results.all_conditions.index(condition)].sum(1)


def _with_mean(recalls: np.ndarray) -> np.ndarray:
    return np.concatenate([recalls, np.nanmean(recalls, axis=-1, keepdims=True)], axis=-1)
