r"""One RBF support vector machine per condition: what a practitioner would use instead.

Fixed beforehand, nothing is tuned, so that its test scores may be looked at:

* columns clipped to the 0.5-99.5 percentiles of the training rows and standardised, with the data module's own
  `FeatureStatistics`; NaN becomes 0, the training mean;
* a sequence is averaged over time after that, and the averages are standardised once more on the training rows,
  because averaging shrinks them;
* each modality's block is divided by :math:`\sqrt{D}`, so that all weigh alike;
* C = 2, :math:`\gamma` = 1 / number of blocks, class weights balanced;
* trained on the training rows only (the validation fold stays unused), for each condition on the rows that have all
  of its modalities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmarr_lightning.analysis.evaluation import prediction_table
from cmarr_lightning.data.conditions import utterance_keys
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.noise import NoiseSource
from cmarr_lightning.errors import InputError
from cmarr_lightning.modalities import Condition, all_conditions, condition_name
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = ["CLEAN", "PARAMETERS", "predict_conditions", "require_sklearn", "tabulate", "utterance_vectors"]

PARAMETERS = {"kernel": "rbf", "C": 2.0, "gamma": "1 / number of blocks", "class_weight": "balanced"}
"""What is fixed, for the record of a run."""

CLEAN = ""
"""Name of the test without noise."""

_CONSTANT = 1e-6


def predict_conditions(data: FeatureDataModule) -> Iterator[tuple[Condition, dict[str, np.ndarray]]]:
    """Train one machine per condition on the training rows of the fold and predict its test rows.

    They are predicted as they are and with every noise of `data.test_noise`; training is always clean.

    Args:
        data: The data module of the fold.

    Yields:
        Condition and, by `CLEAN` and the names of the noises, (R,) int64 predicted class of each test row, -1 where
        the row lacks a modality of the condition.

    Raises:
        InputError: scikit-learn is not installed, or a condition has training rows of one class only.
    """
    require_sklearn()
    from sklearn.svm import SVC

    train, test = data.split.train, data.split.test
    sources = {CLEAN: None} | {noise.name: NoiseSource(noise, data.statistics) for noise in data.test_noise}
    blocks = {name: {m: utterance_vectors(data, m, noise) for m in data.modalities} for name, noise in sources.items()}
    for condition in all_conditions(data.modalities):
        joined = {name: _join(vectors, condition) for name, vectors in blocks.items()}
        has = ~np.isnan(joined[CLEAN]).any(axis=1)
        known, asked = train[has[train]], test[has[test]]
        if len(set(data.labels[known])) < 2:
            raise InputError(
                f"fold {data.fold}: no two classes have training rows with {condition_name(condition)}",
                remedy="leave out a modality with data.modalities",
            )
        machine = SVC(C=PARAMETERS["C"], gamma=1 / len(condition), class_weight="balanced", cache_size=500)
        machine.fit(joined[CLEAN][known], data.labels[known])
        predicted = {name: np.full(len(test), -1, dtype=np.int64) for name in sources}
        for name in sources if len(asked) else ():
            predicted[name][has[test]] = machine.predict(joined[name][asked])
        yield condition, predicted


def _join(vectors: Mapping[str, np.ndarray], condition: Condition) -> np.ndarray:
    return np.concatenate([vectors[m] / np.sqrt(vectors[m].shape[1]) for m in condition], axis=1)


def tabulate(data: FeatureDataModule, predicted: dict[Condition, np.ndarray]) -> tuple[list[str], Tensor, pd.DataFrame]:
    """Count and list predictions in the form that all methods share.

    Rows with all modalities count under every condition. Where some rows are incomplete there is the further
    condition `available`: each row by the machine of the modalities that it has.

    Args:
        data: The data module of the fold.
        predicted: Per condition (R,) class of each test row, -1 = not predicted.

    Returns:
        K names of conditions, confusion counts (K, C, C) and the `prediction_table`.
    """
    rows = data.split.test
    observed = np.stack([data.store.lengths(m)[rows] > 0 for m in data.modalities], axis=1)
    complete = observed.all(axis=1)
    columns = {condition_name(c): np.where(complete, classes, -1) for c, classes in predicted.items()}
    if not complete.all():
        present = [tuple(m for m, has in zip(data.modalities, row, strict=True) if has) for row in observed]
        columns[AVAILABLE] = np.array([predicted[c][i] for i, c in enumerate(present)])
    names, table = list(columns), np.stack(list(columns.values()), axis=1)
    row, order = np.nonzero(table >= 0)
    true, classes, size = data.labels[rows[row]], table[row, order], len(data.class_names)
    confusion = np.zeros((len(names), size, size), dtype=np.int64)
    np.add.at(confusion, (order, true, classes), 1)
    predictions = prediction_table(
        data.manifest_rows(rows[row]), [names[k] for k in order], data.class_names, true, classes
    )
    return names, torch.from_numpy(confusion), predictions


def utterance_vectors(data: FeatureDataModule, modality: str, noise: NoiseSource | None = None) -> np.ndarray:
    """Make one scaled vector per training and test utterance, as the head of this module says.

    Args:
        data: The data module of the fold.
        modality: Name of the modality.
        noise: What is added to the test utterances.

    Returns:
        (N, D) float64; NaN in the rows that lack the modality or belong to neither part.
    """
    s = data.statistics[modality]
    vectors = np.full((len(data.store), len(s.mean)), np.nan)
    keys = utterance_keys(data.store.manifest["utterance_id"])
    for i, row in enumerate(np.concatenate([data.split.train, data.split.test])):
        frames = data.store.get(row, modality).astype(np.float32)
        if noise is not None and i >= len(data.split.train):
            frames = noise.add(frames[None], np.array([len(frames)]), modality, keys[row : row + 1], epoch=0)[0]
        if len(frames):
            clipped = np.clip(frames.astype(np.float64), s.low, s.high)
            vectors[row] = np.nan_to_num((clipped - s.mean) / s.std).mean(axis=0)
    if data.store.kinds[modality] == "sequence":
        known = vectors[data.split.train]
        known = known[~np.isnan(known).any(axis=1)]
        std = known.std(axis=0)
        vectors = (vectors - known.mean(axis=0)) / np.where(std > _CONSTANT, std, 1)
    return vectors


def require_sklearn() -> None:
    """Check that scikit-learn is installed.

    Raises:
        InputError: It is not.
    """
    if find_spec("sklearn") is None:
        raise InputError("scikit-learn is not installed", remedy="pip install cmarr-lightning[baselines]")
