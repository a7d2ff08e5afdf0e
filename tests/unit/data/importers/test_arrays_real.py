"""Importing the real data sets, where they are: CMARR_DATA, or beside the repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.data.importers import import_arrays
from cmarr_lightning.data.store import FeatureStore

_DATA = Path(os.environ.get("CMARR_DATA", Path(__file__).parents[4] / ".." / "shared" / "data"))


def _real(name: str, out: Path, modalities: Sequence[str] | None = None) -> FeatureStore:
    if not (_DATA / name / "features.npz").is_file():
        pytest.skip(f"{name} is not here")
    return import_arrays(_DATA / name, out / "store", modalities=modalities)


@pytest.mark.parametrize(
    ("name", "modalities", "utterances", "classes"),
    [
        (
            "iemocap",
            {"audio": 47, "audio_extra": 11, "nonverbal": 8, "text": 384},
            10039,
            {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084, "": 4508},
        ),
        (
            "msp_improv",
            {"audio": 47, "text": 384},
            8438,
            {"neutral": 3477, "happy": 2644, "sad": 885, "angry": 792, "": 640},
        ),
        (
            "uci_mfeat",
            {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6},
            2000,
            {str(digit): 200 for digit in range(10)},
        ),
    ],
)
def test_real_data_sets_come_in_as_their_readme_says(
    tmp_path: Path, name: str, modalities: dict[str, int], utterances: int, classes: dict[str, int]
) -> None:
    store = _real(name, tmp_path)
    assert store.dims == modalities
    assert len(store) == utterances
    assert store.manifest["label"].value_counts().to_dict() == classes
    with np.load(_DATA / name / "features.npz", allow_pickle=False) as arrays:
        for modality in modalities:
            present = store.lengths(modality) > 0
            np.testing.assert_array_equal(store.values(modality), arrays[modality][present])
            assert np.isnan(arrays[modality][~present]).all()


def test_real_classes_per_session_are_those_of_the_readme(tmp_path: Path) -> None:
    manifest = _real("iemocap", tmp_path, ["audio"]).manifest
    found = manifest[manifest["session"] == "Ses03"]["label"].value_counts()
    assert found[["angry", "happy", "neutral", "sad"]].tolist() == [240, 286, 320, 305]


def test_real_rows_of_only_nan_count_as_absent(tmp_path: Path) -> None:
    store = _real("iemocap", tmp_path, ["audio", "nonverbal"])
    assert store.counts["all_nan"] == {"audio": 0, "nonverbal": 2}
    assert store.counts["observed"]["nonverbal"] == 10037
