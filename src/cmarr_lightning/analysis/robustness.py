r"""Scores against the level of the noise, and against a random missing rate.

Both are pooled as in `cmarr_lightning.analysis.statistics`: the folds of a seed as one test set, the mean over the
seeds.

* **Noise**: what `data.test_noise` asked for; level 0 is the test without noise.
* **Missing rate** r: each test utterance lacks a random set of modalities, a share r of all on average, drawn by
  `draw_missing` from the utterance's name alone, so that every method, seed and fold meets the same masks. Each
  utterance was scored under all conditions, so that its prediction need only be looked up. GCNet's protocol (Lian et
  al., 2023, arXiv 2203.02177) with rates from 0 to 0.7; one modality always stays, so that at most (M - 1) / M can be
  missing.

Note:
    GCNet trains one network per rate and draws the masks anew at every evaluation; here one network meets all rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmarr_lightning.analysis.bootstrap import SCORES, pooled_scores
from cmarr_lightning.analysis.counted import CountedResults
from cmarr_lightning.analysis.protocol import ProtocolResults, tally
from cmarr_lightning.analysis.style import Look, grid, look_of
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.data.conditions import draw_missing, utterance_keys
from cmarr_lightning.errors import InputError
from cmarr_lightning.modalities import condition_name

__all__ = ["RATES", "missing_counts", "missing_masks", "missing_rate_scores", "noise_scores", "plot_robustness"]

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Missing rates of GCNet's protocol."""


def noise_scores(results: ProtocolResults) -> pd.DataFrame:
    """Score every condition under every noise of the test.

    Returns:
        One row per kind of noise, level, condition and metric: noise (type, and modalities where not all are hit),
        level, condition, metric, value in [0, 1]. Level 0 of every kind is the test without noise.

    Raises:
        InputError: Tested without noise, or not every run with the same.
    """
    noisy = [results.noisy_confusion(run) for run in results.runs]
    if not noisy[0]:
        raise InputError(f"{results.folder}: tested without noise", remedy="set data.test_noise and test again")
    for run, counts in zip(results.runs, noisy, strict=True):
        if counts.keys() != noisy[0].keys():
            raise InputError(f"{run.path}: tested with other noise than {results.runs[0].name}", remedy="test it again")
    clean = results.confusion[:, : len(results.conditions)]
    parts = []
    for name in dict.fromkeys(key.rpartition("@")[2] for key in noisy[0]):
        kind, level, *hit = name.split("-", 2)
        label = " in ".join([f"{'Gaussian' if kind == 'gaussian' else kind} noise", *hit])
        confusion = np.array([[counts[f"{c}@{name}"] for c in results.conditions] for counts in noisy])
        parts.append(_score(results, confusion).assign(noise=label, level=float(level)))
    scores = pd.concat(parts)
    without = [_score(results, clean).assign(noise=label, level=0.0) for label in scores["noise"].unique()]
    scores = pd.concat([*without, scores[scores["level"] > 0]], ignore_index=True)
    return scores[["noise", "level", "condition", "metric", "value"]].sort_values(["noise", "level"], kind="stable")


def missing_masks(results: ProtocolResults, rates: Sequence[float] = RATES) -> pd.DataFrame:
    """Draw what is present at each missing rate.

    Returns:
        One row per test utterance that has all modalities, and rate: utterance_id, rate, condition (what is present).
        Rates beyond the first at which only one modality stays are left out: they are all the same.

    Raises:
        InputError: No predictions.
    """
    modalities = list(results.about["modalities"])
    table = results.predictions
    ids = table.loc[table["condition"] == condition_name(modalities), "utterance_id"].drop_duplicates().tolist()
    most = (len(modalities) - 1) / len(modalities)
    parts = []
    for rate in [rate for i, rate in enumerate(rates) if i == 0 or rates[i - 1] < most]:
        masks = draw_missing(utterance_keys(ids), modalities, rate)
        present = [condition_name([m for m, has in zip(modalities, mask, strict=True) if has]) for mask in masks]
        parts.append(pd.DataFrame({"utterance_id": ids, "rate": rate, "condition": present}))
    return pd.concat(parts, ignore_index=True)


def missing_counts(results: ProtocolResults, masks: pd.DataFrame) -> np.ndarray:
    """Count confusions under the masks of each rate.

    Args:
        results: With predictions.
        masks: From `missing_masks`.

    Returns:
        (R, L, C, C) of R runs and L rates in order.

    Raises:
        InputError: No predictions.
    """
    met = masks.merge(results.predictions, on=["utterance_id", "condition"])
    runs = pd.MultiIndex.from_tuples([(run.fold, run.seed) for run in results.runs])
    classes = pd.Index(results.class_names)
    columns = [pd.MultiIndex.from_frame(met[["fold", "seed"]]), met["rate"], met["true"], met["predicted"]]
    return tally(columns, [runs, pd.Index(np.unique(masks["rate"])), classes, classes])


def missing_rate_scores(results: ProtocolResults) -> pd.DataFrame:
    """Score the test utterances under the masks of each rate.

    Returns:
        One row per rate and metric: rate, metric, value in [0, 1].

    Raises:
        InputError: No predictions.
    """
    if isinstance(results, CountedResults):
        rates, counts = results.counts.rates, results.counts.missing
    else:
        masks = missing_masks(results)
        rates, counts = sorted(masks["rate"].unique()), missing_counts(results, masks)
    scores = pooled_scores(_per_seed(results, counts), 1)  # the mean over the first rate is not used
    return pd.DataFrame(
        [(rate, metric, scores[metric][i]) for i, rate in enumerate(rates) for metric in SCORES],
        columns=["rate", "metric", "value"],
    )


def plot_robustness(
    noise: Mapping[str, pd.DataFrame], missing: Mapping[str, pd.DataFrame], complete: str, metric: str = "uar"
) -> Figure:
    """Draw all methods in one picture: per kind of noise two panels, then one for the missing rate.

    Args:
        noise: Label -> `noise_scores`; methods that were tested without noise are not in it.
        missing: Label -> `missing_rate_scores`.
        complete: Name of the complete condition.
        metric: `uar`, `war` or `f1`.
    """
    kinds = list(dict.fromkeys(kind for table in noise.values() for kind in table["noise"]))
    panels = [(kind, condition) for kind in kinds for condition in (complete, MISSING_MEAN)]
    figure, axes = grid(len(panels) + bool(missing), 3.3, 2.8, columns=3)
    looks = look_of(list(dict.fromkeys([*missing, *noise])))
    for axis, (kind, condition) in zip(axes, panels, strict=False):
        for method, table in noise.items():
            chosen = (table["noise"] == kind) & (table["condition"] == condition) & (table["metric"] == metric)
            _line(axis, table[chosen], "level", method, looks[method])
        what = "everything present" if condition == complete else condition
        _dress(axis, f"{kind}: {what}", "level of the noise", metric)
    for method, table in missing.items():
        _line(axes[-1], table[table["metric"] == metric], "rate", method, looks[method])
        _dress(axes[-1], "random missing modalities", "missing rate", metric)
    lines = {str(line.get_label()): line for axis in axes for line in axis.get_lines()}
    figure.legend(
        lines.values(), lines, loc="outside upper center", ncols=min(3, len(lines)), fontsize=8, frameon=False
    )
    return figure


def _per_seed(results: ProtocolResults, counts: np.ndarray) -> np.ndarray:
    """Sum the counts (R, K, C, C) of the runs over the folds: (S, K, C, C) of the whole seeds."""
    if not results.whole_seeds:
        raise InputError(f"{results.folder}: no seed has all folds", remedy="run the command again to finish them")
    return results.pool(counts)


def _score(results: ProtocolResults, counts: np.ndarray) -> pd.DataFrame:
    """Pool the counts (R, K, C, C) of the runs under all conditions: condition, metric, value."""
    scores = pooled_scores(_per_seed(results, counts), len(results.conditions) - 1)
    names = [*results.conditions, MISSING_MEAN]
    rows = [(name, metric, scores[metric][k]) for k, name in enumerate(names) for metric in SCORES]
    return pd.DataFrame(rows, columns=["condition", "metric", "value"])


def _line(axis: Axes, table: pd.DataFrame, x: str, label: str, look: Look) -> None:
    y = 100 * table["value"]
    axis.plot(table[x], y, color=look.color, marker=look.marker, ls=look.linestyle, ms=4, lw=1.3, label=label)


def _dress(axis: Axes, title: str, label: str, metric: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(label, fontsize=8)
    axis.set_ylabel(f"pooled {metric.upper()}, %", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(color="0.9", lw=0.5)
