"""Importing GCNet's data."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmarr_lightning.data.importers import import_features
from cmarr_lightning.errors import InputError


def test_labels_and_features_come_in(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    done = import_features(sources.gcnet(tmp_path / "IEMOCAP", made), tmp_path / "store")
    store, manifest = done.store, done.store.manifest.set_index("utterance_id")
    assert (done.format, store.modalities) == ("gcnet", ("audio", "video", "text"))
    names = ("happy", "sad", "neutral", "angry")
    for row, name in enumerate(made.ids):
        cells = manifest.loc[name]
        assert cells["label"] == names[made.labels[row]]
        assert cells["speaker"] == made.speakers[row]
        assert cells["split"] == ("test" if name.startswith("Ses05") else "train")
        assert cells["transcript"] == f"said {name}"
        for modality in store.modalities:
            expected = made.features[modality][row].astype("f4")
            np.testing.assert_array_equal(store.get(manifest.index.get_loc(name), modality), expected)
    assert any("no validation dialogues" in note for note in store.notes)


def test_six_ways_keep_the_categories_of_the_annotation(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    made.labels = [i % 6 for i in range(60)]
    manifest = import_features(sources.gcnet(tmp_path / "mine", made, ways=6), tmp_path / "store").store.manifest
    assert set(manifest["label"]) == {"happy", "sad", "neutral", "angry", "excited", "frustrated"}
    assert set(manifest["emotion"]) == {"happiness", "sadness", "neutral", "anger", "excited", "frustration"}


def test_regression_labels_are_kept_and_binarised(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    scores = [(-2.5, 0.0, 1.2)[i % 3] for i in range(60)]
    manifest = import_features(sources.gcnet(tmp_path / "m", made, labels=scores), tmp_path / "store").store.manifest
    assert manifest["score"].tolist() == [scores[made.ids.index(name)] for name in manifest["utterance_id"]]
    assert manifest["label"].tolist()[:3] == ["negative", "", "positive"]
    assert set(manifest["split"]) == {"train", "val", "test"}


def test_one_of_several_label_files_is_named(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.gcnet(tmp_path / "mine", sources.Made())
    file = source / "IEMOCAP_features_raw_4way.pkl"
    (source / "IEMOCAP_features_raw_6way.pkl").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"2 files .*4way.pkl, .*6way.pkl.*name the one"):
        import_features(source, tmp_path / "store", format="gcnet")
    assert import_features(file, tmp_path / "store").format == "gcnet"


def test_one_of_several_features_is_chosen(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    source = sources.gcnet(tmp_path / "mine", made)
    (source / "features/roberta-base-UTT").mkdir()
    for name in made.ids:
        np.save(source / "features/roberta-base-UTT" / f"{name}.npy", np.ones(6, "f4"))
    with pytest.raises(InputError, match="text can be deberta-large-4-UTT, roberta-base-UTT"):
        import_features(source, tmp_path / "store")
    store = import_features(source, tmp_path / "store", modalities=["audio", "text=roberta-base-UTT"]).store
    assert store.dims == {"audio": 3, "text": 6}
    assert store.kinds["text"] == "vector"


def _fields(change: Callable[[list[Any]], object]) -> Callable[[Path, Any], None]:
    def damage(source: Path, made: Any) -> None:
        file = source / "IEMOCAP_features_raw_4way.pkl"
        fields = pickle.loads(file.read_bytes())
        change(fields)
        file.write_bytes(pickle.dumps(fields))

    return damage


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def _evil_id(fields: list[Any]) -> None:
    fields[0]["Ses01F_impro01"][0] = "../../evil"


def _set(field: int, value: Any) -> Callable[[list[Any]], object]:
    return lambda fields: fields[field]["Ses01F_impro01"].__setitem__(0, value)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_fields(lambda f: f.pop()), "not the six or seven fields"),
        (_fields(lambda f: f.__setitem__(0, [1])), "utterance ids are not lists by dialogue"),
        (_fields(lambda f: f[1].pop("Ses01F_impro01")), "labels and ids differ in dialogues Ses01F_impro01"),
        (_fields(lambda f: f[1]["Ses01F_impro01"].pop()), "dialogue 'Ses01F_impro01': 5 labels, but 6 ids"),
        (_fields(_set(1, 6)), "label 6, but the 6 classes are happy"),
        (_fields(_set(1, "sad")), "labels cannot be told from speakers"),
        (_fields(_evil_id), r"utterance id '\.\./\.\./evil' has a path separator"),
        (_fields(lambda f: f[5].add("Ses01F_impro01")), "dialogue 'Ses01F_impro01' of the test part is also in train"),
        (_fields(lambda f: f[5].add("nobody")), "dialogue 'nobody' of the test part is unknown"),
        (lambda s, m: (s / "features/manet_UTT" / f"{m.ids[0]}.npy").write_bytes(b""), "not a readable array"),
        (
            lambda s, m: np.save(s / "features/manet_UTT" / f"{m.ids[9]}.npy", np.array([None])),
            r"\.npy: not a readable array \(Object arrays",
        ),
        (
            lambda s, m: [f.unlink() for f in (s / "features/manet_UTT").iterdir()],
            r"manet_UTT: no <utterance id>\.npy of any utterance",
        ),
        (
            lambda s, m: [f.unlink() for f in (s / "features").glob(f"*/{m.ids[0]}.npy")],
            r"no features for 1 utterances",
        ),
    ],
)
def test_sources_that_cannot_be_used_are_refused(
    tmp_path: Path, sources: SimpleNamespace, damage: Callable[[Path, Any], object], expected: str
) -> None:
    made = sources.Made()
    source = sources.gcnet(tmp_path / "mine", made)
    damage(source, made)
    with pytest.raises(InputError, match=expected) as caught:
        import_features(source, tmp_path / "store", format="gcnet")
    assert "Remedy" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_label_file_that_would_run_code_runs_nothing(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.gcnet(tmp_path / "mine", sources.Made())
    _fields(lambda fields: fields.__setitem__(3, _Runs(tmp_path / "ran")))(source, None)
    with pytest.raises(InputError, match=r"raw_4way\.pkl: the pickle asks for posix\.mkdir"):
        import_features(source, tmp_path / "store")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
