from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.data.corpora import msp_improv
from cmarr_lightning.data.corpora.msp_improv import MSPImprovDataModule
from cmarr_lightning.errors import InputError


def test_four_classes_come_in_the_documented_order(corpus):
    data = MSPImprovDataModule(str(corpus.path), batch_size=8)
    data.setup("fit")
    assert data.class_names == ["angry", "happy", "neutral", "sad"]
    assert data.labels[:5].tolist() == [0, 1, 2, 3, 0]


def test_codes_are_classes_of_their_own_when_raw(make_store):
    features = {m: [np.ones(2, dtype=np.float32)] * 6 for m in ("audio", "text")}
    store = make_store(features, {"emotion": list("AHNOSX")})
    data = MSPImprovDataModule(str(store.path), scheme="raw")
    assert data.class_names == ["A", "H", "N", "O", "S"]
    assert data.labels.tolist() == [0, 1, 2, 3, 4, -1]


def test_recordings_are_filtered(corpus):
    data = MSPImprovDataModule(str(corpus.path), recording=["S", "T"], gender="M", batch_size=4)
    rows = data.manifest_rows(np.concatenate([data.split.train, data.split.val, data.split.test]))
    assert set(rows["recording"]) == {"S", "T"}
    assert set(rows["gender"]) == {"M"}


def test_one_speaker_is_left_out(corpus):
    data = MSPImprovDataModule(str(corpus.path), protocol="speaker", fold=7, batch_size=4)
    assert set(data.manifest_rows(data.split.test)["speaker"]) == {"Ses04M"}
    assert set(data.manifest_rows(data.split.val)["speaker"]) == {"Ses04F"}


def test_a_whole_corpus_with_swapped_classes_is_refused(corpus, monkeypatch):
    monkeypatch.setattr(msp_improv, "MSP_IMPROV_TOTALS", {"angry": 20, "happy": 28, "neutral": 24, "sad": 24})
    with pytest.raises(InputError, match="misordered"):
        MSPImprovDataModule(str(corpus.path))
