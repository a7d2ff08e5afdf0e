r"""How good reconstructed representations are: against the true ones of the same test utterances.

For a missing modality let :math:`u_i` be the true point of test utterance i (what the network computes from the
modality itself), :math:`\hat u_i` the one reconstructed from what is present, and :math:`\bar u` the mean of the
true ones.

* **Relative MSE** :math:`= \sum_i \|\hat u_i - u_i\|^2 / \sum_i \|u_i - \bar u\|^2`: 0 is perfect, 1 is as good as
  always answering :math:`\bar u`.
* **Cosine** :math:`= \mathrm{mean}_i \cos(\hat u_i - \bar u, u_i - \bar u)`: without the common part, which would make
  any two points alike; 1 is perfect, 0 is unrelated.
* **MMD**: maximum mean discrepancy between the two sets of points, whichever belong together:
  :math:`\mathrm{MMD}^2 = \mathrm{mean}\,k(u, u') + \mathrm{mean}\,k(\hat u, \hat u') - 2\,\mathrm{mean}\,k(u, \hat u)`
  over all pairs, :math:`k(a, b) = \exp(-\|a - b\|^2 / s)` with s the median squared distance within the joint set
  (Gretton et al., 2012). 0 where the distributions agree; small but not 0 for two samples of one distribution.
* **Probe UAR**: a linear classifier (least squares on one-hot classes, classes weighted equally, ridge penalty 1 on
  standardised points) trained on the true points of training utterances and tested on the true and on the
  reconstructed points of the test utterances: how much of the emotion a reconstruction keeps, for a reader who
  knows true points only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.representations import Representations, choose_rows, collect
from cmarr_lightning.analysis.restore import restore_run
from cmarr_lightning.analysis.runs import Run
from cmarr_lightning.analysis.style import shown_conditions
from cmarr_lightning.metrics import unweighted_average_recall
from cmarr_lightning.modalities import Condition, condition_name, incomplete_conditions

__all__ = [
    "MEASURES",
    "LinearProbe",
    "max_mean_discrepancy",
    "mean_cosine",
    "protocol_reconstruction",
    "relative_mse",
    "representation_quality",
    "run_reconstruction",
]

MEASURES = ("relative_mse", "cosine", "mmd", "probe_true", "probe_recovered")
"""Columns of the tables made here."""

_TEST_ROWS = 1000
_TRAIN_ROWS = 2000
_MMD_ROWS = 500
_RIDGE = 1.0
_TINY = 1e-12


def protocol_reconstruction(results: ProtocolResults, *, store: str | None = None) -> pd.DataFrame:
    """Measure the folds of the first seed that has all of them, one checkpoint each.

    Args:
        results: Of `cmarr crossval`.
        store: Where the feature store is now; by default where it was for the runs.

    Returns:
        One row per fold, condition and missing modality: run, fold, condition, missing, `MEASURES`, n.

    Raises:
        InputError: A run cannot be restored; the message says why.
    """
    there = results.runs_on_disk
    seeds = [seed for seed in results.whole_seeds if any(run.seed == seed for run in there)]
    first = next(iter(seeds), there[0].seed)
    runs = [run for run in there if run.seed == first]
    tables = [run_reconstruction(run, store=store).assign(run=run.name, fold=run.fold) for run in runs]
    table = pd.concat(tables, ignore_index=True)
    return table[["run", "fold", "condition", "missing", *MEASURES, "n"]]


def run_reconstruction(run: Run, *, store: str | None = None) -> pd.DataFrame:
    """Measure one run: at most 1000 test utterances, a probe of at most 2000 training utterances.

    Args:
        run: Of `cmarr crossval`.
        store: Where the feature store is now; by default where it was for the run.

    Returns:
        See `representation_quality`.

    Raises:
        InputError: The run cannot be restored; the message says why.
    """
    task, data = restore_run(run, store)
    conditions = _conditions(data.modalities)
    test = collect(task, data, choose_rows(data, data.split.test, _TEST_ROWS), conditions)
    train = choose_rows(data, data.split.train, _TRAIN_ROWS)
    return representation_quality(collect(task, data, train, [tuple(data.modalities)]), test)


def representation_quality(train: Representations, test: Representations) -> pd.DataFrame:
    """Compare reconstructed with true points, as the head of this module says.

    Args:
        train: Of training utterances; only `real` and `labels` are used, by the probe.
        test: Of test utterances.

    Returns:
        One row per condition and missing modality: condition, missing, `MEASURES`, n; UAR in [0, 1].
    """
    size = len(test.class_names)
    rows = []
    for i, modality in enumerate(test.modalities):
        real = test.real[:, i]
        probe = LinearProbe(train.real[:, i], train.labels, size)
        on_real = _uar(probe(real), test.labels, size)
        for condition in (c for c in test.conditions if modality not in c):
            recovered = test.recovered(condition, modality)
            rows.append(
                {
                    "condition": condition_name(condition),
                    "missing": modality,
                    "relative_mse": relative_mse(recovered, real),
                    "cosine": mean_cosine(recovered, real),
                    "mmd": max_mean_discrepancy(recovered, real),
                    "probe_true": on_real,
                    "probe_recovered": _uar(probe(recovered), test.labels, size),
                    "n": len(real),
                }
            )
    return pd.DataFrame(rows)


def relative_mse(recovered: np.ndarray, real: np.ndarray) -> float:
    """Get the squared error of (N, E) over the variance of the true points; 1 is as good as their mean."""
    error = np.square(recovered - real, dtype=np.float64).sum()
    return float(error / np.square(real - real.mean(0), dtype=np.float64).sum())


def mean_cosine(recovered: np.ndarray, real: np.ndarray) -> float:
    """Get the mean cosine between (N, E) points after the mean of the true ones was taken off both, in [-1, 1]."""
    a, b = recovered - real.mean(0), real - real.mean(0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, _TINY)).mean())


def max_mean_discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """Get the MMD between two samples (N, E) and (N', E), biased estimate; of many points 500, spread evenly."""
    a, b = (x[_spread(len(x), _MMD_ROWS)] for x in (first, second))
    joint = np.concatenate([a, b])
    norms = np.square(joint).sum(1)
    distances = np.maximum(norms[:, None] + norms - 2 * joint @ joint.T, 0)
    kernel, n = np.exp(-distances / max(np.median(distances), _TINY)), len(a)
    squared = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return float(np.sqrt(max(squared, 0.0)))


class LinearProbe:
    """Linear classifier of points, fitted by weighted ridge regression on one-hot classes.

    Args:
        points: (N, E) of training utterances.
        labels: (N,) class index.
        num_classes: C.
    """

    def __init__(self, points: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
        points = points.astype(np.float64)
        self._mean, self._std = points.mean(0), np.maximum(points.std(0), 1e-6)
        x = self._columns(points)
        counts = np.bincount(labels, minlength=num_classes)
        weight = len(labels) / (num_classes * np.maximum(counts, 1))[labels]
        penalty = np.diag([*np.full(points.shape[1], _RIDGE), 0.0])
        weighted = (x * weight[:, None]).T
        self._weights = np.linalg.solve(weighted @ x + penalty, weighted @ np.eye(num_classes)[labels])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Predict the classes (N,) of points (N, E)."""
        predicted: np.ndarray = (self._columns(points.astype(np.float64)) @ self._weights).argmax(1)
        return predicted

    def _columns(self, points: np.ndarray) -> np.ndarray:
        return np.concatenate([(points - self._mean) / self._std, np.ones((len(points), 1))], axis=1)


def _conditions(modalities: Sequence[str]) -> list[Condition]:
    """List the incomplete conditions; of many the ones that the pictures show."""
    by_name = {condition_name(c): c for c in incomplete_conditions(modalities)}
    shown, _ = shown_conditions([*by_name, condition_name(modalities)])
    return [by_name[name] for name in shown[:-1]]


def _spread(count: int, most: int) -> np.ndarray:
    """Choose at most so many of `count` rows, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _uar(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return float(unweighted_average_recall(torch.from_numpy(cells.reshape(num_classes, num_classes))))
