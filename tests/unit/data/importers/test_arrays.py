"""Importing plain NumPy arrays: both layouts, and what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.data.importers import import_arrays
from cmarr_lightning.errors import InputError


def _npz(folder: Path, *, table: str | None = None, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "features.npz", **arrays)
    if table is not None:
        (folder / "metadata.csv").write_text(table)
    return folder


def _files(folder: Path, *, table: str = "utterance_id,label\nu1,sad\nu2,happy\n") -> Path:
    """Two utterances, both with audio frames and one with a text vector."""
    for modality in ("text", "audio"):
        (folder / modality).mkdir(parents=True)
    (folder / "metadata.csv").write_text(table)
    np.save(folder / "audio" / "u1.npy", np.ones((3, 2), "f4"))
    np.save(folder / "audio" / "u2.npy", np.full((1, 2), 2.0, "f4"))
    np.save(folder / "text" / "u2.npy", np.arange(4, dtype="f2"))
    return folder


def test_arrays_of_an_npz_file_become_modalities_and_the_table_the_manifest(tmp_path: Path) -> None:
    source = _npz(
        tmp_path / "mine",
        table="utterance_id,label,take\nu1,sad,01\nu2,happy,02\n",
        audio=np.arange(8.0).reshape(2, 4),
        video=np.ones((2, 3, 5), "f4"),
        text=np.full((2, 2), 0.5, "f2"),
        vad=np.ones((2, 3), "f4"),
        audio_names=np.ones((2, 3), "f4"),
        has_text=np.array([True, False]),
        counts=np.ones((2, 2), int),
        duration=np.array([1.0, 2.0]),
        utterance_id=np.array(["u1", "u2"]),
    )
    store = import_arrays(source, tmp_path / "store")
    assert store.modalities == ("audio", "video", "text")
    assert store.kinds == {"audio": "vector", "video": "sequence", "text": "vector"}
    assert [store.values(m).dtype.name for m in store.modalities] == ["float32", "float32", "float16"]
    assert store.lengths("video").tolist() == [3, 3]
    assert store.get(1, "audio").tolist() == [[4, 5, 6, 7]]
    assert store.manifest["take"].tolist() == ["01", "02"]
    assert (store.name, store.source, store.synthetic) == ("mine", str(source), False)


def test_modalities_can_be_named_and_ordered(tmp_path: Path) -> None:
    arrays = {"audio": np.ones((1, 2)), "text": np.ones((1, 3)), "vad": np.ones((1, 3))}
    source = _npz(tmp_path / "mine", table="utterance_id\nu1\n", **arrays)
    store = import_arrays(source, tmp_path / "store", modalities=["vad", "audio"], name="other")
    assert (store.modalities, store.name) == (("vad", "audio"), "other")


def test_an_npz_file_alone_brings_ids_and_labels_along(tmp_path: Path) -> None:
    source = _npz(
        tmp_path / "mine",
        sample_id=np.array([b"u1", b"u2"]),
        label=np.array([3, 0]),
        duration=np.array([1.5, 2.0]),
        view=np.ones((2, 2), "f4"),
    )
    manifest = import_arrays(source, tmp_path / "store").manifest
    assert manifest["utterance_id"].tolist() == ["u1", "u2"]
    assert manifest["label"].tolist() == ["3", "0"]
    assert manifest["duration"].tolist() == [1.5, 2.0]


def test_more_rows_than_one_block_stay_in_order(tmp_path: Path) -> None:
    n = 2500
    source = _npz(tmp_path / "mine", sample_id=np.arange(n).astype(str), view=np.arange(2.0 * n).reshape(n, 2))
    store = import_arrays(source, tmp_path / "store")
    np.testing.assert_array_equal(store.values("view"), np.arange(2 * n).reshape(n, 2))


_ONE = "utterance_id\nu1\n"


@pytest.mark.parametrize(
    ("table", "arrays", "modalities", "expected"),
    [
        (_ONE, {"audio": np.ones((2, 3))}, None, r"'audio' is float64 \(2, 3\), not float \(1, D\)"),
        (_ONE, {"audio": np.ones((1, 3), int)}, ["audio"], "'audio' is int64"),
        (_ONE, {"audio": np.ones((1, 3))}, ["audio", "text"], r"no array 'text'.*use some of audio"),
        (
            _ONE,
            {"vad": np.ones((1, 3)), "label": np.ones((1, 4))},
            None,
            r"no \(N, D\) or \(N, T, D\) float array",
        ),
        (_ONE, {"audio": np.ones((1, 0, 3))}, None, r"audio: float64 array of shape \(1, 0, 3\)"),
        (_ONE, {"audio": np.array([[1.0, np.inf]])}, None, "utterance 'u1', audio: Inf"),
        (_ONE, {"audio": np.array([[np.nan, np.nan]])}, None, "'u1' has none of the modalities audio"),
        (
            _ONE,
            {"audio": np.ones((1, 2)), "utterance_id": np.array(["u9"])},
            None,
            "row 0 is utterance 'u9', but 'u1'",
        ),
        (
            _ONE,
            {"audio": np.ones((1, 2)), "utterance_id": np.array(["u1", "u2"])},
            None,
            "2 utterances, but metadata",
        ),
        (None, {"audio": np.ones((1, 3))}, None, "neither metadata.csv"),
        (
            None,
            {"sample_id": np.array(["a", "a"]), "audio": np.ones((2, 3))},
            None,
            "'a' stands already in row 0",
        ),
    ],
)
def test_npz_files_that_cannot_be_used_are_refused(
    tmp_path: Path,
    table: str | None,
    arrays: dict[str, np.ndarray],
    modalities: list[str] | None,
    expected: str,
) -> None:
    source = _npz(tmp_path / "mine", table=table, **arrays)
    with pytest.raises(InputError, match=expected) as caught:
        import_arrays(source, tmp_path / "store", modalities=modalities)
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


class _Trap:
    """Runs code when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.touched,))


@pytest.mark.parametrize("key", ["audio", "utterance_id"])
def test_objects_in_an_npz_file_are_refused_and_not_unpickled(tmp_path: Path, key: str) -> None:
    trap = np.array([_Trap(tmp_path / "ran")], dtype=object)
    arrays = {"audio": np.ones((1, 2)), "utterance_id": np.array(["u1"])} | {key: trap}
    source = _npz(tmp_path / "mine", table=_ONE, **arrays)
    with pytest.raises(InputError, match=rf"features\.npz: array '{key}'"):
        import_arrays(source, tmp_path / "store")
    assert not (tmp_path / "ran").exists()


def test_truncated_and_foreign_npz_files_are_named(tmp_path: Path) -> None:
    source = _npz(tmp_path / "mine", table=_ONE, audio=np.ones((1, 999)))
    file = source / "features.npz"
    content = file.read_bytes()
    with zipfile.ZipFile(source / "notes.zip", "w") as archive:
        archive.writestr("readme.txt", "not an array")
    damaged = bytearray(content)
    damaged[500] ^= 255
    for bad in (content[:-30], b"", bytes(damaged), (source / "notes.zip").read_bytes()):
        file.write_bytes(bad)
        with pytest.raises(InputError, match=r"features\.npz: .*(not a readable|cannot be read)"):
            import_arrays(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_files_per_utterance_become_a_ragged_store_with_absences(tmp_path: Path) -> None:
    store = import_arrays(_files(tmp_path / "mine"), tmp_path / "store")
    assert store.modalities == ("audio", "text")
    assert store.kinds == {"audio": "sequence", "text": "vector"}
    assert store.lengths("audio").tolist() == [3, 1]
    assert store.observed().tolist() == [[True, False], [True, True]]
    assert store.get(1, "text").tolist() == [[0, 1, 2, 3]]
    assert store.values("text").dtype == np.float16
    assert store.manifest["label"].tolist() == ["sad", "happy"]


def test_sub_folders_come_in_the_customary_order_then_by_name(tmp_path: Path) -> None:
    source = _files(tmp_path / "mine")
    for modality in ("video", "gaze", "body"):
        (source / modality).mkdir()
        np.save(source / modality / "u1.npy", np.ones(2, "f4"))
    (source / "notes").mkdir()
    store = import_arrays(source, tmp_path / "store")
    assert store.modalities == ("audio", "video", "text", "body", "gaze")


def test_any_single_table_will_do(tmp_path: Path) -> None:
    source = _files(tmp_path / "mine")
    (source / "metadata.csv").rename(source / "mine.csv")
    assert len(import_arrays(source, tmp_path / "store")) == 2
    (source / "other.csv").write_text("utterance_id\n")
    with pytest.raises(InputError, match=r"2 CSV files and no metadata\.csv"):
        import_arrays(source, tmp_path / "store2")


def test_sub_folders_can_be_named_and_ordered(tmp_path: Path) -> None:
    source = _files(tmp_path / "mine")
    assert import_arrays(source, tmp_path / "a", modalities=["text", "audio"]).modalities == ("text", "audio")
    assert import_arrays(source, tmp_path / "b", modalities=["audio"]).modalities == ("audio",)
    with pytest.raises(InputError, match=r"mine/video: no \.npy files"):
        import_arrays(source, tmp_path / "c", modalities=["audio", "video"])


def _save(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda source: np.save(source / name, array, allow_pickle=True)


def _truncate(source: Path) -> None:
    file = source / "audio/u2.npy"
    file.write_bytes(file.read_bytes()[:-1])


def _table(text: str) -> Callable[[Path], None]:
    return lambda source: (source / "metadata.csv").write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            _save("audio/u2.npy", np.ones((3, 7), "f4")),
            r"'u2', audio \(.*audio/u2\.npy\): width 7, but width 2",
        ),
        (_save("audio/u2.npy", np.ones((3, 2), "f8")), r"audio/u2\.npy\): dtype float64, but dtype float32"),
        (_save("audio/u2.npy", np.ones(2, "f4")), r"audio/u2\.npy\): a vector, but a sequence"),
        (_save("audio/u2.npy", np.ones((0, 2), "f4")), r"audio/u2\.npy\): empty"),
        (_save("audio/u1.npy", np.ones((3, 2), int)), r"audio/u1\.npy\): values are int64, not floats"),
        (_save("audio/u1.npy", np.array([None])), r"audio/u1\.npy: not a readable array \(Object arrays"),
        (_truncate, r"audio/u2\.npy: not a readable array"),
        (lambda s: (s / "audio/u2.npy").write_bytes(b""), r"audio/u2\.npy: not a readable array"),
        (lambda s: (s / "audio/u2.npy").write_text("1 2 3"), r"audio/u2\.npy: not a readable array"),
        (
            _save("audio/u7.npy", np.ones((3, 2), "f4")),
            r"mine/audio: no line in .*metadata\.csv for 1 utter.*\(u7\)",
        ),
        (
            _table("utterance_id\nu1\nu2\nu3\n"),
            r"metadata\.csv: no file in audio/, text/ for 1 utterances \(u3\)",
        ),
        (
            _table("utterance_id\nu1\nu2\nu1\n"),
            r"metadata\.csv, line 4: utterance 'u1' stands already in line 2",
        ),
        (
            _table("utterance_id\nu1\nu2\n../u3\n"),
            r"metadata\.csv, line 4: utterance id '\.\./u3' has a path separ",
        ),
        (_table(""), r"metadata\.csv: empty file"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, damage: Callable[[Path], object], expected: str) -> None:
    source = _files(tmp_path / "mine")
    damage(source)
    with pytest.raises(InputError, match=expected) as caught:
        import_arrays(source, tmp_path / "store")
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_only_the_first_few_ids_are_named(tmp_path: Path) -> None:
    ids = "".join(f"x{i}\n" for i in range(20))
    source = _files(tmp_path / "mine", table=f"utterance_id\nu1\nu2\n{ids}")
    with pytest.raises(InputError, match=r"20 utterances \(x0, x1, x2, x3, x4, \.\.\.\)"):
        import_arrays(source, tmp_path / "store")


def test_folders_without_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        import_arrays(tmp_path / "absent", tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither features\.npz nor sub-folders"):
        import_arrays(tmp_path / "empty", tmp_path / "store")


def test_a_store_is_not_written_into_its_source(tmp_path: Path) -> None:
    source = _files(tmp_path / "mine")
    with pytest.raises(InputError, match="lies inside the source"):
        import_arrays(source, source / "store")
