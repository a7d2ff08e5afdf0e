"""`cmarr prepare` on malformed sources: one line that names file, key and remedy, code 2, nothing half-written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cmarr_lightning.commands import run_command

_TABLE = "utterance_id,label\nu1,sad\nu2,happy\n"


def _files(folder: Path, table: bytes = _TABLE.encode()) -> Path:
    for modality in ("audio", "text"):
        (folder / modality).mkdir(parents=True)
        for name in ("u1", "u2"):
            np.save(folder / modality / f"{name}.npy", np.ones((2, 3), "f4"))
    (folder / "metadata.csv").write_bytes(table)
    return folder


def _npz(folder: Path, table: str = _TABLE, **arrays: Any) -> Path:
    folder.mkdir()
    np.savez_compressed(folder / "features.npz", **arrays)
    (folder / "metadata.csv").write_text(table)
    return folder


def _with_file(name: str, array: np.ndarray) -> Callable[[Path, Any], Path]:
    def make(folder: Path, sources: Any) -> Path:
        _files(folder)
        np.save(folder / name, array, allow_pickle=True)
        return folder

    return make


def _hdf5(change: Callable[[h5py.File, list[str]], object]) -> Callable[[Path, Any], Path]:
    def make(folder: Path, sources: Any) -> Path:
        sources.mmin(folder, sources.Made())
        with h5py.File(folder / "V/denseface.h5", "r+") as file:
            change(file, sorted(file))
        return folder

    return make


def _replace(file: h5py.File, key: str, array: np.ndarray) -> None:
    del file[key]
    file[key] = array


def _truncated(folder: Path, sources: Any) -> Path:
    sources.mmin(folder, sources.Made())
    file = folder / "A/comparE.h5"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def _wrong_keys(folder: Path, sources: Any) -> Path:
    sources.mmin(folder, sources.Made())
    sources.hdf5(folder / "L/bert_large.h5", {f"other{i}": np.ones((2, 3)) for i in range(3)})
    return folder


def _labels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Any], Path]:
    def make(folder: Path, sources: Any) -> Path:
        sources.mmin(folder, sources.Made(), one_hot=False)
        file = folder / "target/3/val_label.npy"
        np.save(file, change(np.load(file)))
        return folder

    return make


def _empty(folder: Path, sources: Any) -> Path:
    _files(folder)
    (folder / "text/u2.npy").write_bytes(b"")
    return folder


def _lying_zip(folder: Path, sources: Any) -> Path:
    """A header that announces 80 TB before 16 bytes."""
    _npz(folder, audio=np.ones((2, 3), "f4"))
    header = io.BytesIO()
    shape = (2, 10**9, 5000)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "features.npz", "w") as archive:
        archive.writestr("audio.npy", header.getvalue() + bytes(16))
    return folder


def _nothing(folder: Path, sources: Any) -> Path:
    folder.mkdir()
    return folder


_CASES: dict[str, tuple[Callable[[Path, Any], Path], list[str], list[str]]] = {
    "truncated HDF5": (_truncated, ["A/comparE.h5", "not a readable HDF5 file"], []),
    "wrong keys": (_wrong_keys, ["L/bert_large.h5", "no key 'Ses01", "other0"], []),
    "T = 0": (_hdf5(lambda f, k: _replace(f, k[3], np.ones((0, 4)))), ["V/denseface.h5, key 'Ses01", "(0, 4)"], []),
    "another width": (_hdf5(lambda f, k: _replace(f, k[3], np.ones((4, 5)))), ["V/denseface.h5, key", "width 5"], []),
    "mixed dtypes": (
        _hdf5(lambda f, k: _replace(f, k[3], np.ones((4, 4), "f4"))),
        ["V/denseface.h5, key", "float32"],
        [],
    ),
    "label below 0": (_labels(lambda a: a - 9), ["target/3/val_label.npy, utterance 'Ses", "is no class"], []),
    "label above": (_labels(lambda a: a + 5), ["_int2name.npy, utterance 'Ses", "elsewhere"], []),
    "too few names": (lambda f, s: s.mmin(f, s.Made()), ["4 class numbers", "angry, sad"], ["--classes", "angry,sad"]),
    "one modality only": (_with_file("audio/u9.npy", np.ones((2, 3), "f4")), ["audio: no line", "(u9)"], []),
    "objects": (_with_file("audio/u1.npy", np.array([{}])), ["audio/u1.npy", "Object arrays"], []),
    "width of a file": (_with_file("audio/u2.npy", np.ones((2, 9), "f4")), ["audio/u2.npy", "width 9"], []),
    "empty file": (_empty, ["text/u2.npy", "not a readable array"], []),
    "not UTF-8": (
        lambda f, s: _files(f, _TABLE.replace("sad", "tr\xe4ge").encode("latin-1")),
        ["metadata.csv, line 2", "not UTF-8"],
        [],
    ),
    "repeated id": (lambda f, s: _files(f, (_TABLE + "u1,sad\n").encode()), ["metadata.csv, line 4", "line 2"], []),
    "path in an id": (lambda f, s: _files(f, (_TABLE + "../x,sad\n").encode()), ["line 4", "path separator"], []),
    "other order": (
        lambda f, s: _npz(f, audio=np.ones((2, 3)), utterance_id=np.array(["u2", "u1"])),
        ["features.npz", "row 0 is utterance 'u2'"],
        [],
    ),
    "zip bomb": (
        lambda f, s: _npz(f, audio=np.zeros((2, 10**7))),
        ["features.npz: array 'audio' claims 0.16 GB"],
        ["--max-gb", "0.1"],
    ),
    "lying header": (_lying_zip, ["features.npz: array 'audio'", "80000000000000 bytes, but there are 16"], []),
    "npy bomb": (_with_file("audio/u2.npy", np.ones((2, 3), "f4")), ["audio/u1.npy", "claims"], ["--max-gb", "1e-8"]),
    "nothing": (
        _nothing,
        ["none of the known formats", "arrays, mmin, gcnet, conversation, mmsa", "with metadata.csv"],
        [],
    ),
    "absent": (lambda f, s: f, ["no such file or folder"], []),
}


@pytest.mark.parametrize("case", _CASES)
def test_malformed_sources_leave_nothing_behind(
    tmp_path: Path, sources: SimpleNamespace, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, expected, options = _CASES[case]
    source = make(tmp_path / "in", sources)
    assert run_command(["prepare", str(source), str(tmp_path / "out"), *options]) == 2
    captured = capsys.readouterr()
    for words in (*expected, "Remedy: "):
        assert words in captured.err
    assert captured.err.startswith("cmarr: error: ")
    assert captured.err.count("\n") == 1
    assert {entry.name for entry in tmp_path.iterdir()} <= {"in"}


def test_line_ends_and_byte_order_marks_of_windows_are_no_fault(tmp_path: Path) -> None:
    _files(tmp_path / "in", b"\xef\xbb\xbf" + _TABLE.replace("\n", "\r\n").encode())
    assert run_command(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 0


def test_a_higher_limit_lets_the_same_source_in(tmp_path: Path) -> None:
    source = _npz(tmp_path / "in", audio=np.zeros((2, 10**6)))
    command = ["prepare", str(source), str(tmp_path / "out"), "--max-gb"]
    assert run_command([*command, "0.01"]) == 2
    assert run_command([*command, "0.02"]) == 0


def test_a_store_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["prepare", str(_files(tmp_path / "in")), str(tmp_path / "out")]) == 0
    assert run_command(["prepare", str(tmp_path / "out"), str(tmp_path / "again")]) == 2
    assert "is a feature store already" in capsys.readouterr().err
