from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data.corpora import iemocap
from cmarr_lightning.data.corpora.iemocap import IEMOCAPDataModule
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

REAL = Path(os.environ.get("CMARR_DATA", Path(__file__).parents[5] / "shared" / "data")) / "iemocap"


def test_four_classes_come_in_the_documented_order(corpus):
    data = IEMOCAPDataModule(str(corpus.path), batch_size=8)
    data.setup("fit")
    assert data.class_names == ["angry", "happy", "neutral", "sad"]
    assert data.class_counts.tolist() == [12, 12, 12, 12]


def test_excited_is_merged_into_happy_and_other_categories_are_unlabelled(make_store):
    labels = ["angry", "happy", "excited", "neutral", "sad", "frustrated", ""] * 6
    features = {m: [np.ones(2, dtype=np.float32)] * 42 for m in ("audio", "text")}
    store = make_store(features, {"label": labels, "session": np.repeat(["1", "2", "3"], 14)})
    data = IEMOCAPDataModule(str(store.path), batch_size=8)
    assert data.labels[:7].tolist() == [0, 1, 1, 2, 3, -1, -1]
    data.setup("fit")
    assert len(data.split.train) == 10


def test_raw_categories_come_from_the_emotion_column(corpus):
    data = IEMOCAPDataModule(str(corpus.path), scheme="raw")
    assert data.class_names == ["anger", "excited", "frustration", "happiness", "neutral", "sadness"]
    assert data.labels[:4].tolist() == [0, 1, 4, 5]


def test_filters_and_protocols_reach_the_base_class(corpus):
    data = IEMOCAPDataModule(str(corpus.path), scenario="scripted", protocol="speaker", fold=5, batch_size=4)
    assert set(data.manifest_rows(data.split.train)["scenario"]) == {"scripted"}
    assert set(data.manifest_rows(data.split.test)["speaker"]) == {"Ses03M"}
    female = IEMOCAPDataModule(str(corpus.path), gender="F", batch_size=4)
    assert set(female.manifest_rows(female.split.train)["gender"]) == {"F"}
    with pytest.raises(InputError, match=r'only speaker of session Ses01.*use protocol "session"'):
        IEMOCAPDataModule(str(corpus.path), gender="F", protocol="speaker").setup("fit")


def test_a_whole_corpus_with_swapped_classes_is_refused(corpus, monkeypatch):
    monkeypatch.setattr(iemocap, "IEMOCAP_TOTALS", {"angry": 24, "happy": 24, "neutral": 24, "sad": 24})
    IEMOCAPDataModule(str(corpus.path))
    monkeypatch.setattr(iemocap, "IEMOCAP_TOTALS", {"angry": 20, "happy": 28, "neutral": 24, "sad": 24})
    with pytest.raises(InputError, match="misordered"):
        IEMOCAPDataModule(str(corpus.path))


@pytest.mark.skipif(not REAL.is_dir(), reason="the licensed corpus is not here")
def test_sessions_of_the_real_corpus_have_the_published_class_totals(tmp_path):
    table = pd.read_csv(REAL / "metadata.csv", keep_default_na=False)
    with np.load(REAL / "features.npz", allow_pickle=False) as arrays:
        features = {m: arrays[m] for m in ("nonverbal", "audio")}
    out = tmp_path / "store"
    with FeatureStoreWriter(out, table, tuple(features), name="iemocap", source="test") as writer:
        writer.add_block(features)
    published = [
        [229, 278, 384, 194],
        [137, 327, 362, 197],
        [240, 286, 320, 305],
        [327, 303, 258, 143],
        [170, 442, 384, 245],
    ]
    for fold, totals in enumerate(published):
        data = IEMOCAPDataModule(str(out), fold=fold)
        data.setup("fit")
        assert np.bincount(data.labels[data.split.test]).tolist() == totals
        assert np.bincount(data.labels[data.split.val]).tolist() == published[(fold + 1) % 5]
        assert len(data.split.train) + len(data.split.val) + len(data.split.test) == 5531
        assert all(np.isfinite(s.mean).all() and (s.std > 0).all() for s in data.statistics.values())
    improvised = IEMOCAPDataModule(str(out), scenario="improvised", protocol="speaker").split
    assert sum(map(len, (improvised.train, improvised.val, improvised.test))) == 2943


def _store_of_labels(make_store, column, labels):
    features = {m: [np.ones(2, dtype=np.float32)] * 6 * len(labels) for m in ("audio", "text")}
    sessions = np.repeat(["1", "2", "3"], 2 * len(labels))
    return str(make_store(features, {column: labels * 6, "session": sessions}).path)


def test_the_codes_of_the_corpus_are_read_in_both_schemes(make_store, recwarn):
    codes = ["ang", "hap", "exc", "neu", "sad", "fru", "xxx"]
    data = IEMOCAPDataModule(_store_of_labels(make_store, "label", codes), batch_size=8)
    data.setup("fit")
    assert data.labels[:7].tolist() == [0, 1, 1, 2, 3, -1, -1]
    assert not [w for w in recwarn if "left out" in str(w.message)]


def test_the_codes_are_read_as_raw_categories(make_store):
    codes = ["ang", "exc", "fru", "hap", "neu", "sad", "sur"]
    data = IEMOCAPDataModule(_store_of_labels(make_store, "emotion", codes), scheme="raw", batch_size=8)
    assert data.labels[:7].tolist() == [0, 1, 2, 3, 4, 5, -1]


def test_other_spellings_are_counted_in_a_warning(make_store):
    labels = ["angry", "happy", "neutral", "sad", "Sad", "wrath", "frustration"]
    data = IEMOCAPDataModule(_store_of_labels(make_store, "label", labels), batch_size=8)
    with pytest.warns(UserWarning, match=r"with the labels 'Sad' 6, 'wrath' 6 are left out.*Remedy: rename"):
        data.setup("fit")


def test_labels_of_which_none_is_known_are_an_error_that_lists_them(make_store):
    data = IEMOCAPDataModule(_store_of_labels(make_store, "label", ["Angry", "Happy", "Neutral", "Sad"]))
    with pytest.raises(InputError, match=r"0 labelled utterances of the classes angry.*'Angry' 6, 'Happy' 6.*spell"):
        data.setup("fit")
