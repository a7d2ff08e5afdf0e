"""The report on a store, against a store whose faults are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data import inspection
from cmarr_lightning.data.inspection import inspect_store
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    table = pd.DataFrame(
        {
            "utterance_id": ["a", "b", "c"],
            "session": ["S1", "S1", "S2"],
            "label": ["sad", "", "sad"],
        }
    )
    audio = np.arange(15, dtype="f4").reshape(5, 3)
    audio[:, 1] = 7
    audio[4, 2] = np.nan
    with FeatureStoreWriter(tmp_path / "store", table, ("audio", "text"), name="mine", source="made up") as writer:
        writer.add("a", {"audio": audio[:4], "text": np.array([1, np.nan], "f2")})
        writer.add("b", {"audio": audio[4:]})
        writer.add("c", {"audio": np.full((2, 3), np.nan, "f4"), "text": np.array([2, np.nan], "f2")})
    return FeatureStore.open(tmp_path / "store")


@pytest.mark.parametrize("cells", [1, 6, 1 << 20])
def test_a_report_finds_what_is_there_whatever_the_block(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(inspection, "_BLOCK_CELLS", cells)
    report = inspect_store(store)
    audio, text = report.modalities
    assert (audio.observed, audio.missing, audio.all_nan, audio.frames) == (2, 1, 1, 5)
    assert audio.lengths[0] == 1
    assert audio.lengths[2] == 2.5
    assert audio.lengths[-1] == 4
    assert (audio.nan_cells, audio.nan_columns, audio.constant_columns) == (1, (2,), (1,))
    assert (text.kind, text.dtype, text.observed, text.missing, text.all_nan) == (
        "vector",
        "float16",
        2,
        1,
        0,
    )
    assert (text.nan_cells, text.nan_columns, text.constant_columns) == (2, (1,), (1,))
    assert report.conditions == {"audio+text": 1, "audio": 1, "text": 1}
    assert report.classes.to_dict() == {"": {"S1": 1, "S2": 0}, "sad": {"S1": 1, "S2": 1}}
    assert (report.utterances, report.name, report.synthetic) == (3, "mine", False)


def test_inf_in_a_store_from_elsewhere_is_found(store: FeatureStore) -> None:
    """The writer refuses Inf, so a value is changed behind its back and the recorded checksum with it."""
    from cmarr_lightning.data.store import file_record

    file = store.path / "audio.values.npy"
    np.lib.format.open_memmap(file, mode="r+")[0, 0] = np.inf
    header = store.path / "store.json"
    old = FeatureStore.open(store.path)._files[file.name]["sha256"]
    header.write_text(header.read_text().replace(old, file_record(file)["sha256"]))
    assert inspect_store(FeatureStore.open(store.path)).modalities[0].infinite_columns == (0,)


def test_a_tampered_store_gets_no_report(store: FeatureStore) -> None:
    np.lib.format.open_memmap(store.path / "audio.values.npy", mode="r+")[0, 0] = 99
    with pytest.raises(InputError, match=r"audio\.values\.npy: checksum differs"):
        inspect_store(store)
