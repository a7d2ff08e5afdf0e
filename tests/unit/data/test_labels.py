"""Labels: what is a class, what is left out, and what is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cmarr_lightning.data.labels import check_labels, read_labels
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError


@pytest.fixture
def store(make_store: Callable[..., FeatureStore]) -> FeatureStore:
    features = {m: [np.ones(2, dtype=np.float32)] * 6 for m in ("x", "y")}
    return make_store(features, {"label": ["calm", "Calm", "joy", "", "fear", "joy"]})


def test_names_are_merged_and_empty_cells_stay_empty(store: FeatureStore) -> None:
    names = read_labels(store, "label", {"Calm": "calm", "joy": "happy"})
    assert names.tolist() == ["calm", "calm", "happy", "", "fear", "happy"]


def test_every_label_must_be_a_class_unless_others_are_known(store: FeatureStore) -> None:
    names, rows = read_labels(store, "label", {}), np.arange(6)
    with pytest.raises(InputError, match="'u0001': label 'Calm' is none of calm, joy"):
        check_labels(store, names, rows, ["calm", "joy"], None)
    with pytest.warns(UserWarning, match="with the labels 'Calm' 1 are left out"):
        check_labels(store, names, rows, ["calm", "joy"], {"fear"})


@pytest.mark.filterwarnings("error")
def test_rows_that_take_no_part_are_not_judged(store: FeatureStore) -> None:
    names = read_labels(store, "label", {})
    check_labels(store, names, np.array([0, 2, 3]), ["calm", "joy"], None)
    with pytest.raises(InputError, match="1 labelled utterances of the classes calm, joy"):
        check_labels(store, names, np.array([0, 3]), ["calm", "joy"], None)
