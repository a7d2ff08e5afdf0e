r"""One classifier of scikit-learn per condition: what a practitioner would use instead.

An RBF support vector machine or a logistic regression, for each condition on the rows that have all of its modalities:

* columns clipped to the 0.5-99.5 percentiles of the training rows and standardised, with the data module's own
  `FeatureStatistics`; NaN becomes 0, the training mean;
* a sequence is averaged over time after that, and the averages are standardised once more on the training rows,
  because averaging shrinks them;
* each modality's block is divided by :math:`\sqrt{D}`, so that all weigh alike;
* class weights balanced; of the `SETTINGS` those of the highest UAR on the validation fold, the first of equals;
* trained on the training rows only, as the networks are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmarr_lightning.analysis.evaluation import prediction_table
from cmarr_lightning.data.conditions import utterance_keys
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.noise import NoiseSource
from cmarr_lightning.errors import InputError, not_installed
from cmarr_lightning.modalities import Condition, all_conditions, condition_name
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = [
    "CLEAN",
    "SETTINGS",
    "TITLES",
    "Fitted",
    "Machine",
    "predict_conditions",
    "require_sklearn",
    "tabulate",
    "utterance_vectors",
]

Machine: TypeAlias = Literal["svm", "logistic"]

TITLES: dict[Machine, str] = {"svm": "RBF-SVM", "logistic": "logistic regression"}
"""Names in tables."""

SETTINGS: dict[Machine, list[dict[str, float]]] = {
    "svm": [{"C": c, "gamma": gamma} for c, gamma in product((2.0, 0.5, 8.0), (1.0, 0.5, 2.0))],
    "logistic": [{"C": c} for c in (1.0, 0.1, 10.0)],
}
"""What is tried on the validation fold; gamma in units of 1 / number of modalities present."""

CLEAN = ""
"""Name of the test without noise."""

_CONSTANT = 1e-6


class Fitted(NamedTuple):
    """The classifier of one condition.

    Attributes:
        condition: What it reads.
        settings: Those chosen on the validation fold.
        predicted: By `CLEAN` and the names of the noises, (R,) int64 class of each test row, -1 where the row lacks a
            modality of the condition.
    """

    condition: Condition
    settings: dict[str, float]
    predicted: dict[str, np.ndarray]


def predict_conditions(data: FeatureDataModule, machine: Machine = "svm") -> Iterator[Fitted]:
    """Train one classifier per condition on the training rows of the fold and predict its test rows.

    They are predicted as they are and with every noise of `data.test_noise`; training and choice are always clean.

    Args:
        data: The data module of the fold.
        machine: Kind of classifier.

    Raises:
        InputError: scikit-learn is not installed, a condition has training rows of one class only or no validation
            rows.
    """
    require_sklearn()
    train, val, test = data.split.train, data.split.val, data.split.test
    sources = {CLEAN: None} | {noise.name: NoiseSource(noise, data.statistics) for noise in data.test_noise}
    blocks = {name: {m: utterance_vectors(data, m, noise) for m in data.modalities} for name, noise in sources.items()}
    for condition in all_conditions(data.modalities):
        joined = {name: _join(vectors, condition) for name, vectors in blocks.items()}
        has = ~np.isnan(joined[CLEAN]).any(axis=1)
        known, seen, asked = train[has[train]], val[has[val]], test[has[test]]
        for rows, least, part in ((known, 2, "training"), (seen, 1, "validation")):
            if len(set(data.labels[rows])) < least:
                raise InputError(
                    f"fold {data.fold}: too few {part} rows with {condition_name(condition)} to train or to choose by",
                    remedy="leave out a modality with data.modalities",
                )
        best, settings = _choose(machine, joined[CLEAN], data.labels, known, seen, len(condition))
        predicted = {name: np.full(len(test), -1, dtype=np.int64) for name in sources}
        for name in sources if len(asked) else ():
            predicted[name][has[test]] = best.predict(joined[name][asked])
        yield Fitted(condition, settings, predicted)


def _choose(
    machine: Machine, vectors: np.ndarray, labels: np.ndarray, train: np.ndarray, val: np.ndarray, num_blocks: int
) -> tuple[Any, dict[str, float]]:
    """Train with all settings; return the classifier of the highest UAR on the validation rows, and its settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.svm import SVC

    def make(settings: dict[str, float]) -> Any:
        if machine == "logistic":
            return LogisticRegression(C=settings["C"], class_weight="balanced", max_iter=1000)
        return SVC(C=settings["C"], gamma=settings["gamma"] / num_blocks, class_weight="balanced", cache_size=500)

    fitted = [(make(settings).fit(vectors[train], labels[train]), settings) for settings in SETTINGS[machine]]
    found = sorted(set(labels[val]))
    uars = [
        recall_score(labels[val], one.predict(vectors[val]), labels=found, average="macro", zero_division=0)
        for one, _ in fitted
    ]
    return fitted[int(np.argmax(uars))]


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
    """Make one scaled vector per utterance of the fold, as the head of this module says.

    Args:
        data: The data module of the fold.
        modality: Name of the modality.
        noise: What is added to the test utterances.

    Returns:
        (N, D) float64; NaN in the rows that lack the modality or belong to no part of the fold.
    """
    s = data.statistics[modality]
    vectors = np.full((len(data.store), len(s.mean)), np.nan)
    keys = utterance_keys(data.store.manifest["utterance_id"])
    asked = set(data.split.test.tolist())
    for row in np.concatenate([data.split.train, data.split.val, data.split.test]):
        frames = data.store.get(row, modality).astype(np.float32)
        if noise is not None and int(row) in asked:
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
        raise not_installed("scikit-learn", "baselines")
