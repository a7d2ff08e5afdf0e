"""MMIN folders that are refused: damaged files, links to elsewhere, labels that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cmarr_lightning.data.importers import import_features
from cmarr_lightning.errors import InputError


def _truncate(source: Path) -> None:
    file = source / "V/denseface.h5"
    file.write_bytes(file.read_bytes()[:-200])


def _rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda source: np.save(source / name, change(np.load(source / name)), allow_pickle=True)


def _dataset(value: Any) -> Callable[[Path], None]:
    """Put other frames in the place of the eighth utterance."""

    def change(source: Path) -> None:
        with h5py.File(source / "V/denseface.h5", "r+") as file:
            key = sorted(file)[7]
            del file[key]
            if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
                file[key] = value
            else:
                file.create_dataset(key, **value)

    return change


def _label(row: list[Any]) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        changed = labels.astype(np.asarray(row).dtype)
        changed[2] = row
        return changed

    return change


def _group(source: Path) -> None:
    with h5py.File(source / "V/denseface.h5", "r+") as file:
        key = min(file)
        del file[key]
        file.create_group(key)


def _outside(source: Path) -> None:
    with h5py.File(source / "V/denseface.h5", "r+") as file:
        key = min(file)
        del file[key]
        file.create_dataset(key, (4, 4), "f8", external=[("/etc/passwd", 0, 128)])


def _virtual(source: Path) -> None:
    with h5py.File(source / "V/denseface.h5", "r+") as file:
        key = min(file)
        del file[key]
        layout = h5py.VirtualLayout((4, 4), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4, 4))
        file.create_virtual_dataset(key, layout)


_IDS = "target/1/trn_int2name.npy"
_LABELS = "target/1/trn_label.npy"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_truncate, r"denseface\.h5: not a readable HDF5 file"),
        (lambda s: (s / "L/bert_large.h5").write_bytes(b""), r"bert_large\.h5: not a readable HDF5 file"),
        (lambda s: h5py.File(s / "L/bert_large.h5", "w").close(), r"bert_large\.h5: holds nothing"),
        (_dataset({"data": np.ones((0, 4))}), r"denseface\.h5, key 'Ses0.*': shape \(0, 4\)"),
        (_dataset({"data": np.ones((4, 9))}), r"denseface\.h5, key 'Ses0.*': width 9, but 4 in 'Ses01"),
        (_dataset({"data": np.ones((4, 4), "f4")}), "dtype float32, but float64 in"),
        (_dataset({"data": np.ones(4)}), "axes 1, but 2 in"),
        (_dataset({"data": np.ones((1, 4, 4))}), r"shape \(1, 4, 4\)"),
        (_dataset({"data": np.ones((4, 4), int)}), "int64, not floats"),
        (_dataset({"data": [b"text"]}), "not floats"),
        (_dataset({"data": np.full((4, 4), np.inf)}), r"utterance 'Ses0.*', video: Inf"),
        (_dataset({"shape": (10**9, 10**4), "dtype": "f8", "chunks": (10, 10)}), "claims 80000 GB.*--max-gb"),
        (_dataset({"shape": (10, 4), "dtype": "f8", "chunks": (10, 4)}), "values are announced, none is written"),
        (_dataset(h5py.ExternalLink("/etc/passwd", "/x")), "is a link, which could lead to another file"),
        (_dataset(h5py.SoftLink("/x")), "is a link"),
        (_group, "a group, not the frames"),
        (_outside, "its data are in another file"),
        (_virtual, "its data are in another file"),
        (_rewrite(_LABELS, _label([0, 1, 1, 0])), r"trn_label\.npy, utterance 'Ses.*': label \[0, 1, 1, 0\] is no"),
        (_rewrite(_LABELS, _label([0, 0, 0, 0])), r"label \[0, 0, 0, 0\] is no class"),
        (_rewrite(_LABELS, lambda a: a.argmax(1) - 1), r"trn_label\.npy, utterance 'Ses.*': label -1 is no class"),
        (_rewrite(_LABELS, lambda a: a.argmax(1) + 0.5), "label 0.5 is no class"),
        (_rewrite(_LABELS, lambda a: a.argmax(1) + 4), "class [0-3], but [4-7] elsewhere"),
        (_rewrite(_LABELS, lambda a: a[:-1]), r"trn_label\.npy: 47 labels, but 48 ids in trn_int2name\.npy"),
        (_rewrite(_LABELS, lambda a: a.astype(str)), "neither one-hot rows nor class numbers"),
        (_rewrite(_LABELS, lambda a: a.astype(object)), r"trn_label\.npy: not a readable array \(Object arrays"),
        (_rewrite(_IDS, lambda a: np.concatenate([a[:1], a[:1], a[2:]])), "utterance '.*' stands twice"),
        (_rewrite(_IDS, lambda a: np.arange(len(a))), "not one id per utterance"),
        (_rewrite(_IDS, lambda a: np.where(a == a[0], b"../../evil", a)), r"id '\.\./\.\./evil' has a path separator"),
        (_rewrite(_IDS, lambda a: np.where(a == a[0], b"\xff\xfe", a)), r"trn_int2name\.npy: an id is not UTF-8"),
        (lambda s: (s / _IDS).unlink(), r"trn_int2name\.npy: not a readable array \(.*No such file"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    tmp_path: Path, sources: SimpleNamespace, damage: Callable[[Path], object], expected: str
) -> None:
    source = sources.mmin(tmp_path / "mine", sources.Made())
    damage(source)
    with pytest.raises(InputError, match=expected) as caught:
        import_features(source, tmp_path / "store")
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
