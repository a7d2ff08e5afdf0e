"""Importing the pickles of MMGCN, COGMEN and conv-emotion."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmarr_lightning.data.importers import import_features
from cmarr_lightning.errors import InputError


@pytest.mark.parametrize("swapped", [False, True])
def test_nine_fields_come_in_whichever_way_round(tmp_path: Path, sources: SimpleNamespace, swapped: bool) -> None:
    made = sources.Made()
    made.labels = [i % 6 for i in range(60)]
    done = import_features(
        sources.conversation(tmp_path / "IEMOCAP_features.pkl", made, swapped=swapped), tmp_path / "store"
    )
    store, manifest = done.store, done.store.manifest.set_index("utterance_id")
    assert (done.format, store.modalities) == ("conversation", ("audio", "video", "text"))
    assert any("labels stand before speakers" in note for note in store.notes) == swapped
    names = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    for row, name in enumerate(made.ids):
        assert manifest.loc[name, "label"] == names[made.labels[row]]
        assert manifest.loc[name, "gender"] == made.speakers[row][-1]
        for modality in store.modalities:
            found = store.get(manifest.index.get_loc(name), modality)
            np.testing.assert_array_equal(found[0], made.features[modality][row][0].astype("f4"))
    assert store.kinds["audio"] == "vector"
    assert manifest["split"].value_counts().to_dict() == {"train": 48, "test": 12}


def _meld(sources: SimpleNamespace, path: Path, label_map: Any) -> tuple[Any, Path]:
    made = sources.Made()
    made.labels = [i % 7 for i in range(60)]
    keys = {name: number for number, name in enumerate(sorted({n.rpartition("_")[0] for n in made.ids}))}

    def field(values: list[Any]) -> dict[int, list[Any]]:
        return {keys[dialogue]: entries for dialogue, entries in sources.dialogues(made, values).items()}

    changes = {m: field([a[0].tolist() for a in arrays]) for m, arrays in made.features.items()}
    changes |= {
        "ids": field([name[-3:] for name in made.ids]),
        "speakers": field([np.eye(9)[i % 9] for i in range(60)]),
        "labels": field(made.labels),
        "sentences": field(["hm"] * 60),
        "train": list(range(8)),
        "test": [8, 9],
    }
    return made, sources.conversation(path, made, label_map=label_map, **changes)


@pytest.mark.parametrize("label_map", [{}, {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6}])
def test_ten_fields_are_meld(tmp_path: Path, sources: SimpleNamespace, label_map: dict[str, int]) -> None:
    _, source = _meld(sources, tmp_path / "MELD_features_raw1.pkl", label_map)
    store = import_features(source, tmp_path / "store").store
    manifest = store.manifest
    first = sorted(label_map) or ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]
    assert set(manifest["label"]) == set(first)
    assert set(manifest["speaker"]) == {""}  # characters come back in every part
    assert set(manifest["character"]) == {str(i) for i in range(9)}
    assert manifest["dialogue_id"].nunique() == 10
    assert store.values("audio").dtype == np.float32


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def _with(sources: SimpleNamespace, made: Any, field: str, value: Any) -> dict[str, Any]:
    """Replace the entry of the second utterance in a field."""
    values: list[Any] = {
        "audio": [a[0] for a in made.features["audio"]],
        "labels": list(made.labels),
        "ids": list(made.ids),
    }[field]
    values[1] = value
    return {field: sources.dialogues(made, values)}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("audio", np.ones(9), r"utterance 'Ses01M_impro01_F001', audio vectors: float64 \(9,\), not a vector of 3"),
        ("audio", np.ones((2, 3)), r"float64 \(2, 3\)"),
        ("audio", ["x", "y", "z"], "audio vectors: a list, not a vector of"),
        ("audio", [1.0, 2.0], "audio vectors: a list, not a vector of 3"),
        ("audio", "loud", "audio vectors: a str, not a vector of"),
        ("audio", np.full(3, np.inf), "utterance 'Ses01M_impro01_F001', audio: Inf"),
        ("labels", 6, "label 6, but the 6 classes are happy"),
        ("labels", "sad", "labels cannot be told from speakers"),
        ("ids", "a/../b", "path separator"),
    ],
)
def test_entries_that_cannot_be_used_are_named(
    tmp_path: Path, sources: SimpleNamespace, field: str, value: Any, expected: str
) -> None:
    made = sources.Made()
    source = sources.conversation(tmp_path / "x.pkl", made, **_with(sources, made, field, value))
    with pytest.raises(InputError, match=expected) as caught:
        import_features(source, tmp_path / "store", format="conversation", classes=None)
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (({},) * 5, "not the nine or ten fields of a conversation pickle .tuple of 5"),
        ([*[{"d": [1]}] * 7, [1], [1], [1], [1]], "list of 11"),
        ({"train": {}}, "dict of 1"),
        (3, r"\(int\)"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: Any, expected: str) -> None:
    source = tmp_path / "x.pkl"
    source.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=expected):
        import_features(source, tmp_path / "store", format="conversation")


def test_code_in_the_label_map_does_not_run(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.conversation(tmp_path / "x.pkl", sources.Made(), label_map=_Runs(tmp_path / "ran"))
    for form in ("conversation", "auto"):
        with pytest.raises(InputError, match=r"asks for posix.mkdir|none of the known formats"):
            import_features(source, tmp_path / "store", format=form)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pkl"]
