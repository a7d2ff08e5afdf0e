"""Importing MMIN folders: both corpora's encodings, official folds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cmarr_lightning.commands import run_command
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.importers import class_labels, import_features
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError


@pytest.mark.parametrize("one_hot", [True, False])
def test_features_labels_and_folds_come_in(tmp_path: Path, sources: SimpleNamespace, one_hot: bool) -> None:
    made = sources.Made()
    source = sources.mmin(tmp_path / "IEMOCAP", made, one_hot=one_hot)
    done = import_features(source, tmp_path / "store")
    store = done.store
    assert (done.format, store.name, store.modalities) == ("mmin", "IEMOCAP", ("audio", "video", "text"))
    assert "10 folds" in done.reason
    manifest = store.manifest.set_index("utterance_id")
    for row, name in enumerate(made.ids):
        cells = manifest.loc[name]
        assert cells["label"] == ("angry", "happy", "neutral", "sad")[made.labels[row]]
        assert cells["speaker"] == made.speakers[row]
        assert cells["gender"] == made.speakers[row][-1]
        assert cells["dialogue_id"] == name.rpartition("_")[0]
        for modality in store.modalities:
            expected = made.features[modality][row].astype("f4")
            np.testing.assert_array_equal(store.get(manifest.index.get_loc(name), modality), expected)
    assert "0 angry, 1 happy, 2 neutral, 3 sad" in store.notes[0]
    assert not any("official folds" in note for note in store.notes)


def test_every_official_fold_can_be_trained_on(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    import_features(sources.mmin(tmp_path / "mine", made), tmp_path / "store")
    for number, speaker in enumerate(sorted(set(made.speakers)), start=1):
        named = FeatureDataModule(str(tmp_path / "store"), protocol="official", fold_column=f"split_{number}")
        module = FeatureDataModule(str(tmp_path / "store"), protocol="official", fold=number - 1)
        split = module.split
        assert named.split.test.tolist() == split.test.tolist()
        assert set(module.manifest_rows(split.test)["speaker"]) == {speaker}
        assert {s[:-1] for s in module.manifest_rows(split.val)["speaker"]} == {speaker[:-1]}
        assert len(split.train) == 48


def test_the_configuration_file_of_the_released_programs_names_the_folders(
    tmp_path: Path, sources: SimpleNamespace
) -> None:
    source = sources.mmin(tmp_path / "here", sources.Made())
    config = tmp_path / "IEMOCAP_config.json"
    roots = {"feature_root": str(source), "target_root": str(source / "target"), "total_cv": 10}
    config.write_text(json.dumps(roots))
    done = import_features(config, tmp_path / "store")
    assert (done.format, len(done.store)) == ("mmin", 60)
    assert import_features(config, tmp_path / "store").unchanged
    np.save(source / "target/1/trn_label.npy", np.load(source / "target/1/trn_label.npy")[:, ::-1])
    with pytest.raises(InputError, match=r"class [0-3], but [0-3] elsewhere"):
        import_features(config, tmp_path / "store", overwrite=True)
    config.write_text(json.dumps({**roots, "feature_root": "/data9/someone/features"}))
    with pytest.raises(InputError, match=r"feature_root /data9/someone/features is not a folder here.*instead of"):
        import_features(config, tmp_path / "store", overwrite=True)


def _msp(made: Any) -> Any:
    made.ids = [f"MSP-IMPROV-S01A-{s[-1]}{s[3:5]}-S-FM{i:02d}" for i, s in enumerate(made.speakers)]
    return made


def test_msp_improv_asks_for_the_order_of_its_classes(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = _msp(sources.Made(frames=lambda modality, i: 5))
    source = sources.mmin(tmp_path / "MSP", made, one_hot=False, names={"audio": "A/comparE_raw"})
    with pytest.raises(InputError, match=r"totals \(0: 15, 1: 15.*--classes angry,happy,neutral,sad"):
        import_features(source, tmp_path / "store")
    store = import_features(source, tmp_path / "store", classes=["happy", "angry", "sad", "neutral"]).store
    manifest = store.manifest.set_index("utterance_id").loc[made.ids]
    assert manifest["label"].tolist() == ["happy", "angry", "sad", "neutral"] * 15
    assert set(manifest["session"]) == {f"Ses0{i}" for i in range(1, 6)}
    assert manifest["speaker"].iloc[0] == "F01"
    assert set(manifest["recording"]) == {"S"}


def test_msp_improv_is_told_by_the_totals_of_the_whole_corpus(
    tmp_path: Path, sources: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _msp(sources.Made())
    made.labels = [0] * 10 + [1] * 20 + [2] * 25 + [3] * 5
    monkeypatch.setitem(class_labels._TOTALS, "msp_improv", {"angry": 5, "happy": 20, "neutral": 25, "sad": 10})
    source = sources.mmin(tmp_path / "MSP", made, one_hot=False)
    store = import_features(source, tmp_path / "store").store
    assert store.manifest["label"].value_counts().to_dict() == {"angry": 5, "happy": 20, "neutral": 25, "sad": 10}
    assert "by their totals; the totals are those of the corpus" in store.notes[0]
    with pytest.raises(InputError, match=r"class totals angry 10, happy 20.*misordered"):
        import_features(source, tmp_path / "b", classes=["angry", "happy", "neutral", "sad"])


def test_class_totals_of_the_whole_of_iemocap_are_checked(
    tmp_path: Path, sources: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(class_labels._TOTALS, "iemocap", {"angry": 15, "happy": 15, "neutral": 14, "sad": 16})
    source = sources.mmin(tmp_path / "mine", sources.Made())
    with pytest.raises(InputError, match="angry 15, happy 15, neutral 15, sad 15, but the corpus has angry 15"):
        import_features(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_fold_that_repeats_another_is_named_and_repaired(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    speakers = sorted(set(made.speakers))
    speakers[7] = speakers[6]
    source = sources.mmin(tmp_path / "mine", made, folds=speakers)
    notes = " ".join(import_features(source, tmp_path / "store").store.notes)
    assert "split_8 repeats split_7" in notes
    assert "never tested: 6 utterances (Ses04M)" in notes
    assert "tested more than once: 6 utterances (Ses04F)" in notes
    assert "--repair-folds" in notes
    store = import_features(source, tmp_path / "fair", repair_folds=True).store
    tested = [set(store.manifest.loc[store.manifest[f"split_{k}"] == "test", "speaker"]) for k in range(1, 11)]
    assert tested == [{speaker} for speaker in sorted(set(made.speakers))]
    assert any("were rebuilt" in note for note in store.notes)
    module = FeatureDataModule(str(tmp_path / "fair"), protocol="official", fold_column="split_8")
    assert len(module.split.test) == 6


def test_unfair_official_folds_are_no_cross_validation(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    speakers = sorted(set(made.speakers))
    source = sources.mmin(tmp_path / "mine", made, folds=[*speakers[:7], speakers[6], *speakers[8:]])
    store = str(import_features(source, tmp_path / "store").store.path)
    with pytest.raises(InputError, match=r"tested more than once: Ses.*\(folds 6, 7\).*--repair-folds"):
        _ = FeatureDataModule(store, protocol="official").split
    with pytest.warns(UserWarning, match=r"no fair cross-validation: split_8 repeats split_7.*never tested.*Ses04M"):
        assert len(FeatureDataModule(store, protocol="official", fold_column="split_1").split.test) == 6


def test_faults_of_the_folds_show_up_whenever_the_store_is_inspected(
    tmp_path: Path, sources: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sources.Made()
    speakers = sorted(set(made.speakers))
    source = sources.mmin(tmp_path / "mine", made, folds=[*speakers[:9], speakers[0]])
    page = tmp_path / "report.html"
    for command in (
        ["prepare", str(source), str(tmp_path / "store")],
        ["inspect", str(tmp_path / "store")],
        ["inspect", str(tmp_path / "store"), "--html", str(page)],
    ):
        assert run_command(command) == 0
        assert "split_10 repeats split_1" in capsys.readouterr().out
    assert "split_10 repeats split_1" in page.read_text()


def test_an_utterance_in_two_parts_stops_unless_the_folds_are_rebuilt(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    source = sources.mmin(tmp_path / "mine", made)
    for what in ("label", "int2name"):
        files = [source / "target/2" / f"{part}_{what}.npy" for part in ("trn", "tst")]
        train, test = (np.load(file) for file in files)
        np.save(files[1], np.concatenate([test, train[:1]]))
    with pytest.raises(InputError, match=r"target/2/tst_int2name\.npy, utterance '.*': stands in train already"):
        import_features(source, tmp_path / "store")
    assert len(import_features(source, tmp_path / "store", repair_folds=True).store) == 60


def test_utterances_without_a_modality_are_absent_and_counted(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    source = sources.mmin(tmp_path / "mine", made)
    with h5py.File(source / "V/denseface.h5", "r+") as file:
        del file[made.ids[3]]
        file["Ses01F_impro09_F999"] = np.ones((4, 4))
    store = import_features(source, tmp_path / "store").store
    row = store.manifest["utterance_id"].tolist().index(made.ids[3])
    assert store.observed()[row].tolist() == [True, False, True]
    assert any(f"1 utterances lack video, e.g. {made.ids[3]}" in note for note in store.notes)
    assert any("denseface.h5 holds 1 utterances without a label" in note for note in store.notes)


def test_modalities_choose_among_files(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    source = sources.mmin(tmp_path / "mine", made)
    sources.hdf5(source / "A/wav2vec.h5", {name: np.ones((2, 9)) for name in made.ids})
    assert import_features(source, tmp_path / "a").store.dims["audio"] == 3
    store = import_features(source, tmp_path / "b", modalities=["text", "audio=wav2vec"]).store
    assert store.dims == {"text": 5, "audio": 9}
    with pytest.raises(InputError, match=r"audio can be comparE, wav2vec.*audio=comparE"):
        import_features(source, tmp_path / "c", modalities=["audio"])
    with pytest.raises(InputError, match=r"'audio=hubert' is not there.*audio=comparE"):
        import_features(source, tmp_path / "c", modalities=["audio=hubert"])


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", "a\\b"])
def test_ids_that_lead_out_of_a_folder_are_refused(tmp_path: Path, sources: SimpleNamespace, name: str) -> None:
    made = sources.Made()
    made.ids[5] = name
    source = sources.mmin(tmp_path / "mine", made, one_hot=False)
    with pytest.raises(InputError, match=r"path separator|could lead out"):
        import_features(source, tmp_path / "store", classes=["a", "b", "c", "d"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_an_interrupted_run_leaves_the_earlier_store(tmp_path: Path, sources: SimpleNamespace) -> None:
    made = sources.Made()
    source = sources.mmin(tmp_path / "mine", made)
    checksum = import_features(source, tmp_path / "store").store.checksum
    with h5py.File(source / "V/denseface.h5", "r+") as file:
        file[made.ids[7]][:] = np.inf
    with pytest.raises(InputError, match="Inf"):
        import_features(source, tmp_path / "store", overwrite=True)
    store = FeatureStore.open(tmp_path / "store")
    store.verify()
    assert store.checksum == checksum
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "store"]


def test_folders_that_are_not_there_are_left_out(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.mmin(tmp_path / "mine", sources.Made())
    (source / "V/denseface.h5").unlink()
    assert import_features(source, tmp_path / "store").store.modalities == ("audio", "text")
    for file in ("A/comparE.h5", "L/bert_large.h5"):
        (source / file).unlink()
    with pytest.raises(InputError, match="no features found"):
        import_features(source, tmp_path / "other")


def test_a_limit_on_the_whole_input_can_be_set(tmp_path: Path, sources: SimpleNamespace) -> None:
    source = sources.mmin(tmp_path / "mine", sources.Made())
    with pytest.raises(InputError, match="allowed in total"):
        import_features(source, tmp_path / "store", max_bytes=20_000)
    assert len(import_features(source, tmp_path / "store", max_bytes=200_000).store) == 60
