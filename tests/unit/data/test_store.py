"""Opening, reading, verifying and sharing a feature store."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError


def _write(out: Path, *, value: float = 1.0, overwrite: bool = False) -> Path:
    table = pd.DataFrame({"utterance_id": ["a", "b", "c"], "label": ["happy", "sad", ""], "take": [1, 2, 3]})
    with FeatureStoreWriter(
        out,
        table,
        ("audio", "text"),
        name="mine",
        source="made up",
        units={"text": "logit"},
        overwrite=overwrite,
    ) as writer:
        writer.add("a", {"audio": np.full((3, 2), value, "f4"), "text": np.arange(4, dtype="f2")})
        writer.add("b", {"text": np.ones(4, "f2")})
        writer.add("c", {"audio": np.full((1, 2), 9.0, "f4")})
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "store")


def _edit(folder: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    header = json.loads((folder / "store.json").read_text())
    change(header)
    (folder / "store.json").write_text(json.dumps(header))


def test_a_store_says_what_was_written(folder: Path) -> None:
    store = FeatureStore.open(folder)
    assert (len(store), store.name, store.source, store.synthetic) == (3, "mine", "made up", False)
    assert store.modalities == ("audio", "text")
    assert store.dims == {"audio": 2, "text": 4}
    assert store.kinds == {"audio": "sequence", "text": "vector"}
    assert store.units == {"audio": "", "text": "logit"}
    assert store.offsets("audio").tolist() == [0, 3, 3, 4]
    assert store.lengths("text").tolist() == [1, 1, 0]
    assert store.observed().tolist() == [[True, True], [False, True], [True, False]]
    assert store.get(0, "text").tolist() == [[0, 1, 2, 3]]
    assert store.get(1, "audio").shape == (0, 2)
    assert store.values("text").dtype == np.float16
    assert store.manifest["take"].tolist() == [1, 2, 3]
    assert store.manifest["label"].tolist() == ["happy", "sad", ""]
    assert isinstance(store.manifest.index, pd.RangeIndex)
    assert store.manifest is store.manifest
    store.verify()


def test_opening_maps_the_files_and_they_cannot_be_written(folder: Path) -> None:
    store = FeatureStore.open(folder)
    for modality in store.modalities:
        assert isinstance(store.values(modality), np.memmap)
        assert store.get(0, modality).base is not None
        with pytest.raises(ValueError, match="read-only"):
            store.values(modality)[0] = 0


def test_a_pickled_store_is_a_path(folder: Path) -> None:
    store = FeatureStore.open(folder)
    _ = store.manifest
    packed = pickle.dumps(store)
    assert len(packed) < 1000
    copy = pickle.loads(packed)
    assert copy.checksum == store.checksum
    assert isinstance(copy.values("audio"), np.memmap)
    np.testing.assert_array_equal(copy.values("audio"), store.values("audio"))


def test_a_store_replaced_behind_a_pickle_is_noticed(folder: Path) -> None:
    packed = pickle.dumps(FeatureStore.open(folder))
    _write(folder, value=2.0, overwrite=True)
    with pytest.raises(InputError, match="replaced while it was in use"):
        pickle.loads(packed)


def test_the_checksum_identifies_the_data_not_the_folder(tmp_path: Path, folder: Path) -> None:
    checksum = FeatureStore.open(folder).checksum
    assert FeatureStore.open(_write(tmp_path / "again")).checksum == checksum
    assert FeatureStore.open(_write(tmp_path / "other", value=2.0)).checksum != checksum


@pytest.mark.parametrize("row", [-1, 3])
def test_rows_outside_are_refused(folder: Path, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of 3"):
        FeatureStore.open(folder).get(row, "audio")


def test_unknown_modality_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no modality 'video'.*use one of audio, text"):
        FeatureStore.open(folder).values("video")


@pytest.mark.parametrize("file", ["audio.values.npy", "audio.offsets.npy", "text.values.npy", "manifest.parquet"])
def test_truncated_and_missing_files_are_noticed_at_opening(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{file}: {len(content) - 1} bytes, {len(content)} were written"):
        FeatureStore.open(folder)
    (folder / file).unlink()
    with pytest.raises(InputError, match=rf"{file}: missing"):
        FeatureStore.open(folder)


@pytest.mark.parametrize("file", ["audio.values.npy", "text.offsets.npy", "manifest.parquet"])
def test_a_flipped_byte_is_noticed_by_verify(folder: Path, file: str) -> None:
    store = FeatureStore.open(folder)
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=rf"{file}: checksum differs"):
        store.verify()


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no feature store.*cmarr prepare"):
        FeatureStore.open(tmp_path)


def test_an_interrupted_swap_is_explained(folder: Path) -> None:
    folder.rename(folder.with_name("store.earlier-0123abcd"))
    with pytest.raises(InputError, match=r"earlier store at .*store\.earlier-0123abcd: rename it back"):
        FeatureStore.open(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "not the header of a feature store"),
        ('{"format": "else"}', "not the header of a feature store"),
        ('{"format": "cmarr feature store", "version": 99}', "format version 99, this program reads 1"),
        ('{"format": "cmarr feature store", "version": 1}', "entry missing"),
    ],
)
def test_a_bad_header_is_refused(folder: Path, text: str, expected: str) -> None:
    (folder / "store.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        FeatureStore.open(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda h: h["modalities"]["audio"].update(dim=3), r"audio\.values\.npy: float32 \(4, 2\), but"),
        (lambda h: h["modalities"]["audio"].update(dtype="float16"), r"says float16 \(4, 2\)"),
        (lambda h: h["modalities"]["audio"].update(kind="vector"), "not the offsets of a vector"),
        (lambda h: h["modalities"]["audio"].update(kind="tensor"), "unknown kind 'tensor'"),
        (lambda h: h["modalities"]["audio"].pop("dim"), "entry missing or of the wrong type"),
        (lambda h: h["counts"].update(utterances=2), r"offsets\.npy: int64 \(4,\), but store.json says"),
        (lambda h: h.update(modalities=["audio"]), "entry missing or of the wrong type"),
    ],
)
def test_a_header_that_disagrees_with_the_files_is_refused(
    folder: Path,
    change: Callable[[dict], None],  # type: ignore[type-arg]
    expected: str,
) -> None:
    _edit(folder, change)
    with pytest.raises(InputError, match=expected):
        FeatureStore.open(folder)


@pytest.mark.parametrize("offsets", [[1, 3, 3, 4], [0, 3, 2, 4], [0, 5, 3, 4]])
def test_offsets_that_do_not_rise_from_zero_are_refused(folder: Path, offsets: list[int]) -> None:
    np.save(folder / "audio.offsets.npy", np.array(offsets))
    with pytest.raises(InputError, match=r"audio\.offsets\.npy: not the offsets of a sequence"):
        FeatureStore.open(folder)


def test_arrays_of_objects_are_not_unpickled(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    file = folder / "audio.values.npy"
    np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
    _edit(folder, lambda h: h["modalities"]["audio"]["files"][file.name].update(bytes=file.stat().st_size))
    with pytest.raises(InputError, match=r"audio\.values\.npy: not a readable array"):
        FeatureStore.open(folder)
    assert not (tmp_path / "ran").exists()


def test_a_manifest_of_another_length_is_refused(folder: Path) -> None:
    file = folder / "manifest.parquet"
    pd.DataFrame({"utterance_id": ["a", "b"]}).to_parquet(file)
    _edit(folder, lambda h: h["manifest"][file.name].update(bytes=file.stat().st_size))
    with pytest.raises(InputError, match=r"manifest\.parquet: 2 rows, but the arrays have 3"):
        _ = FeatureStore.open(folder).manifest


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="counts pages as Linux does")
def test_released_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"utterance_id": ["a"], "label": ["happy"]})
    frames = np.arange(2**22, dtype="f4").reshape(-1, 4)  # 16 MB
    with FeatureStoreWriter(tmp_path / "store", table, ("audio", "text"), name="mine", source="made up") as writer:
        writer.add("a", {"audio": frames, "text": np.ones(2, "f4")})
    store = FeatureStore.open(tmp_path / "store")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")

    total = store.values("audio").sum(dtype="f8")
    before = resident()
    store.release()
    assert before - resident() > 12e6
    assert store.values("audio").sum(dtype="f8") == total == frames.sum(dtype="f8")
