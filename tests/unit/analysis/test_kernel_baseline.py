"""One classifier of scikit-learn per condition."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.analysis.kernel_baseline import (
    CLEAN,
    SETTINGS,
    Machine,
    predict_conditions,
    require_sklearn,
    tabulate,
    utterance_vectors,
)
from cmarr_lightning.data.corpora.iemocap import IEMOCAPDataModule
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.importers import import_arrays
from cmarr_lightning.errors import InputError

pytest.importorskip("sklearn")


def predicted_by(
    data: FeatureDataModule, noise: str = CLEAN, machine: Machine = "svm"
) -> dict[tuple[str, ...], np.ndarray]:
    return {one.condition: one.predicted[noise] for one in predict_conditions(data, machine)}


def test_noise_hits_the_test_rows_only(tiny_store: Path):
    data = FeatureDataModule(str(tiny_store), fold=1, test_noise=["gaussian-1-audio"])
    clean, noisy = predicted_by(data), predicted_by(data, "gaussian-1-audio")
    np.testing.assert_array_equal(clean["text",], predicted_by(FeatureDataModule(str(tiny_store), fold=1))["text",])
    np.testing.assert_array_equal(clean["text",], noisy["text",])
    right = [np.mean(each["audio",] == data.labels[data.split.test]) for each in (clean, noisy)]
    assert right[0] > 0.5
    assert right[1] < 0.4  # nothing is left of the audio; chance is 0.25


@pytest.mark.parametrize("machine", ["svm", "logistic"])
def test_every_condition_is_learnt_on_its_own(tiny_store: Path, machine: Machine):
    data = FeatureDataModule(str(tiny_store), fold=1)
    predicted = predicted_by(data, machine=machine)
    assert list(predicted) == [
        *(("audio",), ("video",), ("text",)),
        *(("audio", "video"), ("audio", "text"), ("video", "text"), ("audio", "video", "text")),
    ]
    names, confusion, table = tabulate(data, predicted)
    assert names[-1] == "audio+video+text"
    assert (confusion.sum((-2, -1)) == len(data.split.test)).all()
    accuracy = confusion.diagonal(dim1=-2, dim2=-1).sum(-1) / len(data.split.test)
    assert (accuracy > 0.3).all()  # chance is 0.25
    assert accuracy[-1] > accuracy[:3].min()
    assert set(table["utterance_id"]) == set(data.utterance_ids(data.split.test))
    assert not [column for column in table if column.startswith("p_")]


def described(data: FeatureDataModule, modalities: tuple[str, ...]) -> np.ndarray:
    """The vectors from their definition: clip, standardise, average, standardise, sqrt(D)."""
    train = data.split.train
    blocks = []
    for m in modalities:
        frames = np.concatenate([data.store.get(row, m) for row in train])
        low, high = np.nanquantile(frames, [0.005, 0.995], axis=0)
        mean, std = (f(np.clip(frames, low, high), axis=0) for f in (np.nanmean, np.nanstd))
        scaled = [(np.clip(data.store.get(row, m), low, high) - mean) / std for row in range(len(data.store))]
        means = np.stack([np.nan_to_num(x).mean(0) for x in scaled])
        means = (means - means[train].mean(0)) / means[train].std(0)
        blocks.append(means / np.sqrt(means.shape[1]))
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("machine", ["svm", "logistic"])
def test_a_classifier_is_the_one_described(tiny_store: Path, machine: Machine):
    """The same one in a slow loop over the settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    data = FeatureDataModule(str(tiny_store), fold=0)
    train, val, test = data.split.train, data.split.val, data.split.test
    x, y = described(data, ("audio", "text")), data.labels
    best_uar, expected, chosen = -1.0, None, None
    for settings in SETTINGS[machine]:
        if machine == "svm":
            one = SVC(C=settings["C"], gamma=settings["gamma"] / 2, class_weight="balanced")
        else:
            one = LogisticRegression(C=settings["C"], class_weight="balanced", max_iter=1000)
        right = one.fit(x[train], y[train]).predict(x[val]) == y[val]
        uar = np.mean([right[y[val] == c].mean() for c in np.unique(y[val])])
        if uar > best_uar + 1e-12:
            best_uar, expected, chosen = uar, one.predict(x[test]), settings
    (fitted,) = (one for one in predict_conditions(data, machine) if one.condition == ("audio", "text"))
    assert fitted.settings == chosen
    assert (fitted.predicted[CLEAN] == expected).mean() > 0.98  # float32 statistics


def test_the_test_rows_choose_nothing(tiny_store: Path):
    data, other = (FeatureDataModule(str(tiny_store), fold=0) for _ in range(2))
    other.labels[other.split.test] = 0
    for one, same in zip(predict_conditions(data), predict_conditions(other), strict=True):
        assert one.settings == same.settings
        np.testing.assert_array_equal(one.predicted[CLEAN], same.predicted[CLEAN])


def test_vectors_are_scaled_once_and_nan_is_the_mean(write_store, tmp_path: Path):
    store = write_store(tmp_path / "store", np.ones((48, 3), dtype=bool))
    data = FeatureDataModule(str(store.path), fold=0)
    vector = next(m for m in data.modalities if store.kinds[m] == "vector")
    s = data.statistics[vector]
    row = data.split.test[0]
    expected = (np.clip(store.get(row, vector)[0], s.low, s.high) - s.mean) / s.std
    np.testing.assert_allclose(utterance_vectors(data, vector)[row], np.nan_to_num(expected), rtol=1e-5)


def test_rows_with_gaps_count_as_available_only(gappy_store: Path):
    data = FeatureDataModule(str(gappy_store), fold=0)
    rows = data.split.test
    observed = np.stack([data.store.lengths(m)[rows] > 0 for m in data.modalities], axis=1)
    complete = observed.all(axis=1)
    assert 0 < complete.sum() < len(rows)
    predicted = predicted_by(data)
    names, confusion, table = tabulate(data, predicted)
    assert names[-1] == "available"
    assert confusion.sum((-2, -1)).tolist() == [complete.sum()] * 7 + [len(rows)]
    available = table[table["condition"] == "available"].set_index("utterance_id")["predicted"]
    for i, (row, has) in enumerate(zip(rows, observed, strict=True)):
        own = tuple(m for m, present in zip(data.modalities, has, strict=True) if present)
        assert available[data.utterance_ids([row])[0]] == data.class_names[predicted[own][i]]


def test_without_scikit_learn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cmarr_lightning.analysis.kernel_baseline.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt -e '\.\[baselines\]'"):
        require_sklearn()


def test_one_real_fold_is_as_the_reference(tmp_path: Path):
    """Fold 0 of IEMOCAP, audio only, trained on 3 sessions; all folds pooled give WAR .535 and UAR .565."""
    folder = Path(os.environ.get("CMARR_DATA", Path(__file__).parents[3].parent / "shared" / "data")) / "iemocap"
    if not folder.is_dir():
        pytest.skip("needs the IEMOCAP features")
    store = import_arrays(folder, tmp_path / "store", modalities=["audio", "nonverbal"])
    data = IEMOCAPDataModule(str(store.path), fold=0)
    condition, predicted = next(iter(predicted_by(data).items()))
    assert condition == ("audio",)
    right = pd.Series(predicted == data.labels[data.split.test])
    uar = right.groupby(data.labels[data.split.test]).mean().mean()
    assert right.mean() == pytest.approx(0.535, abs=0.05)
    assert uar == pytest.approx(0.565, abs=0.05)
