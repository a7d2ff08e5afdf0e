"""Importing MMSA's pickles."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.importers import import_features
from cmarr_lightning.errors import InputError


@pytest.mark.parametrize("name", ["unaligned_50.pkl", "mine.pkl"])
def test_parts_scores_and_ragged_frames_come_in(tmp_path: Path, sources: SimpleNamespace, name: str) -> None:
    made = sources.Made()
    done = import_features(sources.mmsa(tmp_path / name, made), tmp_path / "store")
    store, manifest = done.store, done.store.manifest
    assert (done.format, store.modalities) == ("mmsa", ("audio", "video", "text"))
    assert manifest["split"].tolist() == ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    assert manifest["utterance_id"].iloc[4] == "video1$_$4"
    assert manifest["dialogue_id"].iloc[4] == "video1"
    assert manifest["label"].tolist()[:4] == ["", "negative", "positive", "positive"]
    assert manifest["score"].tolist()[:4] == [0, -1, 1, 3]
    assert manifest["transcript"].iloc[0] == "text video0$_$0"
    for row in range(60):
        for modality in store.modalities:
            expected = made.features[modality][row].astype("f4")
            np.testing.assert_array_equal(store.get(row, modality), expected)
    module = FeatureDataModule(str(tmp_path / "store"), protocol="official", classes=["negative", "positive"])
    assert len(module.split.train) == 27


def test_infinities_of_old_extractors_become_zero(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    made.features["audio"][2][0, 1] = -np.inf
    store = import_features(sources.mmsa(tmp_path / "aligned_50.pkl", made), tmp_path / "store").store
    assert store.get(2, "audio")[0, 1] == 0
    assert "audio: 1 values -inf were set to 0" in store.notes
    made.features["audio"][2][0, 1] = np.inf
    with pytest.raises(InputError, match=r"utterance 'video0\$_\$2', audio: Inf"):
        import_features(sources.mmsa(tmp_path / "aligned_50.pkl", made), tmp_path / "b")


def test_lengths_that_cut_into_the_data_are_not_used(tmp_path: Path, sources: SimpleNamespace) -> None:
    content = pickle.loads(sources.mmsa(tmp_path / "x.pkl", sources.Made()).read_bytes())
    content["train"]["audio_lengths"] = [1] * 36
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    store = import_features(tmp_path / "x.pkl", tmp_path / "store").store
    assert set(store.lengths("audio")) == {7}
    assert set(store.lengths("video")) == {4}


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": np.array(["a"] * 36)}, "utterance 'a' stands already|entries, but"),
        ({"id": np.array(["../x"] * 36)}, "path separator|entries, but"),
        ({"regression_labels": np.zeros(3)}, "key regression_labels: 3 entries, but 36 ids"),
        ({"regression_labels": ["x"] * 36}, "regression_labels hold no numbers"),
        ({"regression_labels": [np.nan] * 36}, r"utterance 'video0\$_\$0': label is not a number"),
        ({"audio": np.zeros((36, 0, 3))}, r"key audio: float64 \(36, 0, 3\)"),
        ({"audio": np.ones((36, 2, 3), int)}, r"key audio: int64"),
        ({"audio": np.ones((36, 2, 9)), "audio_lengths": [2] * 36}, "audio: width 3, but width 9"),
        ({"audio_lengths": [99] * 36}, "key audio_lengths: not numbers of frames"),
        ({"audio_lengths": ["x"] * 36}, "key audio_lengths: not numbers of frames"),
    ],
)
def test_parts_that_cannot_be_used_are_refused(
    tmp_path: Path, sources: SimpleNamespace, changes: dict[str, Any], expected: str
) -> None:
    content = pickle.loads(sources.mmsa(tmp_path / "x.pkl", sources.Made()).read_bytes())
    content["train"] |= changes
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=expected) as caught:
        import_features(tmp_path / "x.pkl", tmp_path / "store", format="mmsa")
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"train": {}}, "no keys train, valid and test"),
        ([1, 2], "no keys train"),
        ({"train": {}, "valid": {}, "test": {}}, "train: no key id"),
        ({key: {"id": ["a"]} for key in ("train", "valid", "test")}, "train: no key regression_labels"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: Any, expected: str) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=expected):
        import_features(tmp_path / "x.pkl", tmp_path / "store", format="mmsa")


def test_code_in_a_part_does_not_run(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.mmsa(tmp_path / "aligned_50.pkl", sources.Made(), text_bert=_Runs(tmp_path / "ran"))
    with pytest.raises(InputError, match=r"aligned_50\.pkl: the pickle asks for posix\.mkdir"):
        import_features(source, tmp_path / "store")
    assert [entry.name for entry in tmp_path.iterdir()] == ["aligned_50.pkl"]
