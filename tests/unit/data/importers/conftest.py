"""Writers of made-up sources in the formats of the field."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

PARTS = ("trn", "val", "tst")


@dataclass
class Made:
    """Utterances of ten speakers, two per session, spread over dialogues of six; ids like those of IEMOCAP."""

    per_speaker: int = 6
    dims: Mapping[str, int] = field(default_factory=lambda: {"audio": 3, "video": 4, "text": 5})
    dtype: str = "f8"
    frames: Callable[[str, int], int] = lambda modality, i: {"audio": 1 + i % 7, "video": 4, "text": 2}[modality]

    def __post_init__(self) -> None:
        speakers = [(session, gender) for session in range(1, 6) for gender in "FM"]
        count = len(speakers) * self.per_speaker
        self.speakers = [f"Ses0{s}{g}" for s, g in speakers for _ in range(self.per_speaker)]
        # The letter after the session is the other side on purpose: it says who wore the markers.
        self.ids = [
            f"{s[:-1]}{'MF'['MF'.index(s[-1]) - 1]}_impro01_{s[-1]}{i:03d}" for i, s in enumerate(self.speakers)
        ]
        self.labels = [i % 4 for i in range(count)]
        random = np.random.default_rng(0)
        self.features: dict[str, list[np.ndarray]] = {
            m: [random.normal(size=(self.frames(m, i), d)).astype(self.dtype) for i in range(count)]
            for m, d in self.dims.items()
        }

    def fold(self, speaker: str) -> dict[str, list[int]]:
        """Leave a speaker out, validate on the other one of the session."""
        rows: dict[str, list[int]] = {part: [] for part in PARTS}
        for row, other in enumerate(self.speakers):
            part = "tst" if other == speaker else "val" if other[:-1] == speaker[:-1] else "trn"
            rows[part].append(row)
        return rows


def _write_hdf5(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def _write_mmin(
    folder: Path,
    made: Made,
    *,
    one_hot: bool = True,
    folds: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Path:
    for modality, name in {
        "audio": "A/comparE",
        "video": "V/denseface",
        "text": "L/bert_large",
        **(names or {}),
    }.items():
        _write_hdf5(folder / f"{name}.h5", dict(zip(made.ids, made.features[modality], strict=True)))
    _write_hdf5(folder / "A/comparE_mean_std.h5", {"1": np.zeros(2)})
    ids = np.array(made.ids)
    for number, speaker in enumerate(folds or sorted(set(made.speakers)), start=1):
        target = folder / "target" / str(number)
        target.mkdir(parents=True)
        for part, rows in made.fold(speaker).items():
            labels = np.array(made.labels)[rows]
            np.save(target / f"{part}_label.npy", np.eye(4, dtype=np.int64)[labels] if one_hot else labels)
            np.save(target / f"{part}_int2name.npy", ids[rows].astype("S23")[:, None] if one_hot else ids[rows])
    return folder


def _dialogues(made: Made, values: Sequence[Any]) -> dict[str, list[Any]]:
    by_dialogue: dict[str, list[Any]] = {}
    for name, value in zip(made.ids, values, strict=True):
        by_dialogue.setdefault(name.rpartition("_")[0], []).append(value)
    return by_dialogue


def _parts(made: Made) -> tuple[set[str], set[str]]:
    names = sorted({name.rpartition("_")[0] for name in made.ids})
    return {n for n in names if not n.startswith("Ses05")}, {n for n in names if n.startswith("Ses05")}


def _write_gcnet(folder: Path, made: Made, *, labels: Sequence[Any] | None = None, ways: int = 4) -> Path:
    folder.mkdir(parents=True)
    train, test = _parts(made)
    fields: list[Any] = [
        _dialogues(made, made.ids),
        _dialogues(made, labels or made.labels),
        _dialogues(made, [speaker[-1] for speaker in made.speakers]),
        _dialogues(made, [f"said {name}" for name in made.ids]),
        *([train, test] if labels is None else [train - {min(train)}, {min(train)}, test]),
    ]
    (folder / f"IEMOCAP_features_raw_{ways}way.pkl").write_bytes(pickle.dumps(fields))
    names = {"audio": "wav2vec-large-c-UTT", "video": "manet_UTT", "text": "deberta-large-4-UTT"}
    for modality, name in names.items():
        (folder / "features" / name).mkdir(parents=True)
        for utterance, array in zip(made.ids, made.features[modality], strict=True):
            np.save(folder / "features" / name / f"{utterance}.npy", array)
    return folder


def _write_conversation(
    path: Path, made: Made, *, swapped: bool = False, label_map: Any = None, **changes: Any
) -> Path:
    """Write the nine fields; vectors are the first frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = {m: _dialogues(made, [a[0] for a in arrays]) for m, arrays in made.features.items()}
    train, test = _parts(made)
    fields: dict[str, Any] = {
        "ids": _dialogues(made, made.ids),
        "speakers": _dialogues(made, [speaker[-1] for speaker in made.speakers]),
        "labels": _dialogues(made, made.labels),
        **{m: vectors[m] for m in ("text", "audio", "video")},
        "sentences": _dialogues(made, ["hm"] * len(made.ids)),
        "train": train,
        "test": test,
        **changes,
    }
    if swapped:
        order = list(fields)
        order[1:3] = ["labels", "speakers"]
        fields = {key: fields[key] for key in order}
    path.write_bytes(pickle.dumps((*fields.values(), *([] if label_map is None else [label_map])), protocol=2))
    return path


def _write_mmsa(path: Path, made: Made, **changes: Any) -> Path:
    """Write sequences padded to the longest, with their lengths; a fifth of the utterances each validates and tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(made.ids)
    cuts = {"train": slice(0, 3 * count // 5), "valid": slice(3 * count // 5, 4 * count // 5)}
    cuts["test"] = slice(4 * count // 5, count)
    content = {}
    keys = {"audio": "audio", "video": "vision", "text": "text"}
    for part, rows in cuts.items():
        ids = [f"video{i // 3}$_${i}" for i in range(count)][rows]
        content[part] = {
            "id": np.array(ids),
            "raw_text": [f"text {name}" for name in ids],
            "regression_labels": np.array([(label - 1.5) * 2 if label else 0.0 for label in made.labels[rows]], "f4"),
            "annotations": ["Neutral" for _ in ids],
            **{key: _padded(made.features[m][rows]) for m, key in keys.items()},
            "audio_lengths": [len(a) for a in made.features["audio"][rows]],
            "vision_lengths": [len(a) for a in made.features["video"][rows]],
            **changes,
        }
    path.write_bytes(pickle.dumps(content))
    return path


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    # The text has no recorded lengths and is of one length, so nothing is padded there.
    padded = np.zeros((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), arrays[0].dtype)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded


@pytest.fixture(scope="session")
def sources() -> SimpleNamespace:
    """The writers and the made-up corpus they write."""
    return SimpleNamespace(
        Made=Made,
        hdf5=_write_hdf5,
        mmin=_write_mmin,
        gcnet=_write_gcnet,
        conversation=_write_conversation,
        mmsa=_write_mmsa,
        dialogues=_dialogues,
    )
