r"""How far the probability of the predicted class can be believed.

Let :math:`c_i` be the largest class probability of prediction i and :math:`h_i` whether that class is right. The
unit interval is cut into B equal bins, and with the :math:`n_b` predictions of a bin

.. math::
    \mathrm{ECE} = \sum_b \frac{n_b}{N} \left| \mathrm{mean}_b(h) - \mathrm{mean}_b(c) \right|

(Guo et al., 2017, Eq. 3). Predictions of all folds and seeds are taken together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_calibration_error

from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.style import folded, grid, look_of
from cmarr_lightning.errors import InputError

__all__ = ["BINS", "FEWEST", "calibration_bins", "calibration_errors", "plot_calibration"]

BINS = 15
FEWEST = 20
"""Predictions that a bin needs to be drawn: the accuracy of a few says nothing."""


def calibration_errors(results: ProtocolResults) -> pd.Series[float]:
    """Compute the expected calibration error per condition, in [0, 1].

    Raises:
        InputError: No predictions, or predictions without probabilities.
    """
    errors = {}
    for condition, part in _with_probabilities(results).groupby("condition", sort=False):
        probabilities = torch.tensor(part[_columns(results)].to_numpy(dtype=np.float32))
        true = torch.tensor(pd.Index(results.class_names).get_indexer(pd.Index(part["true"])))
        errors[str(condition)] = float(
            multiclass_calibration_error(probabilities, true, len(results.class_names), n_bins=BINS, norm="l1")
        )
    return pd.Series(errors, name="ece").reindex(results.all_conditions)


def calibration_bins(results: ProtocolResults) -> pd.DataFrame:
    """Compute the points of a reliability diagram.

    Returns:
        One row per condition and non-empty bin: condition, bin, n, confidence and accuracy (means, in [0, 1]).

    Raises:
        InputError: No predictions, or predictions without probabilities.
    """
    table = _with_probabilities(results)
    confidence = table[_columns(results)].max(axis=1).astype(np.float64)
    number = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    points = pd.DataFrame(
        {
            "condition": table["condition"],
            "bin": number,
            "confidence": confidence,
            "accuracy": (table["true"] == table["predicted"]).astype(np.float64),
        }
    )
    grouped = points.groupby(["condition", "bin"], sort=False)
    bins = grouped[["confidence", "accuracy"]].mean().assign(n=grouped.size()).reset_index()
    order = pd.Index(results.all_conditions).get_indexer(pd.Index(bins["condition"]))
    return bins.assign(order=order).sort_values(["order", "bin"], ignore_index=True).drop(columns="order")


def plot_calibration(methods: Mapping[str, pd.DataFrame], conditions: Sequence[str]) -> Figure:
    """Draw a reliability diagram per condition. Below the diagonal a method believes too much in itself.

    The area of a marker grows with the number of predictions in its bin; bins of fewer than `FEWEST` are not drawn.

    Args:
        methods: Label -> `calibration_bins`.
        conditions: Which.
    """
    figure, axes = grid(len(conditions), 2.9, 2.9)
    for axis, condition in zip(axes, conditions, strict=True):
        axis.plot([0, 100], [0, 100], color="0.6", lw=0.8)
        for method, look in look_of(list(methods)).items():
            bins = methods[method]
            bins = bins[(bins["condition"] == condition) & (bins["n"] >= FEWEST)]
            x, y, n = 100 * bins["confidence"], 100 * bins["accuracy"], bins["n"]
            axis.plot(x, y, color=look.color, ls=look.linestyle, lw=1.2)
            label = method if axis is axes[0] else None
            size = 8 + 110 * n / max(1, n.sum())
            axis.scatter(x, y, s=size, color=look.color, marker=look.marker, alpha=0.8, label=label)
        axis.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axis.set_title(folded(condition), fontsize=9)
        axis.set_axisbelow(True)
        axis.set_xlabel("confidence, %", fontsize=8)
        axis.set_ylabel("accuracy, %", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(color="0.9", lw=0.5)
    figure.legend(loc="outside upper center", ncols=min(3, len(methods)), fontsize=8, frameon=False)
    return figure


def _with_probabilities(results: ProtocolResults) -> pd.DataFrame:
    table = results.predictions
    columns = _columns(results)
    if not set(columns) <= set(table.columns) or table[columns].isna().any(axis=None):
        raise InputError(f"{results.folder}: {results.about['method']} gives classes without probabilities")
    return table


def _columns(results: ProtocolResults) -> list[str]:
    return [f"p_{name}" for name in results.class_names]
