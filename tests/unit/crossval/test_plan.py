"""What a protocol consists of, and that a folder belongs to one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmarr_lightning.crossval.plan import (
    PROTOCOL,
    build_data,
    choose_folds,
    identify,
    keep_protocol,
    parse_numbers,
    resolve_config,
    run_about,
)
from cmarr_lightning.errors import InputError


@pytest.fixture
def resolved(tiny_store: Path) -> dict:
    """A resolved configuration, as far as this module looks into it."""
    data = {"store": str(tiny_store), "fold": 3, "batch_size": 32}
    return {
        "seed_everything": 7,
        "trainer": {"max_epochs": 2},
        "model": {"class_path": "cmarr_lightning.CMARRTask", "init_args": {"embed_dim": 16}},
        "data": {"class_path": "cmarr_lightning.FeatureDataModule", "init_args": data},
    }


@pytest.fixture
def identity(resolved: dict) -> dict:
    return identify(resolved, build_data(resolved), "CMARR")


def test_a_configuration_is_resolved_by_the_command_line(config: Path, tiny_store: Path):
    words = ["-c", str(config), "--data.store", str(tiny_store), "--trainer.max_epochs=5"]
    resolved = resolve_config(words)
    assert resolved["trainer"]["max_epochs"] == 5
    assert resolved["model"]["class_path"] == "cmarr_lightning.CMARRTask"
    assert resolved["model"]["init_args"]["embed_dim"] == 16
    assert resolved["data"]["init_args"]["batch_size"] == 32
    assert resolved["data"]["init_args"]["protocol"] == "session"
    assert build_data(resolved, 2).fold == 2


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("--data.fold", "--folds"),
        ("--data.init_args.fold=1", "--folds"),
        ("--seed_everything=3", "--seeds"),
        ("--run", "--out"),
    ],
)
def test_what_the_protocol_sets_cannot_be_given(word: str, remedy: str):
    with pytest.raises(InputError, match=rf"^--\S+ is set for each run by the protocol\. Remedy: use {remedy}"):
        resolve_config(["-c", "mine.yaml", word, "1"])


def test_folds_are_those_of_the_data(resolved: dict):
    data = build_data(resolved)
    assert choose_folds(data, "all") == [0, 1, 2, 3]
    assert choose_folds(data, "3, 1") == [3, 1]
    with pytest.raises(InputError, match=r"no fold 4\. Remedy: use all, or numbers of 0 to 3"):
        choose_folds(data, "1,4")


def test_folds_follow_the_protocol_of_the_data(resolved: dict):
    resolved["data"]["init_args"] |= {"protocol": "speaker"}
    assert choose_folds(build_data(resolved), "all") == list(range(8))


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1,1", "0.5"])
def test_lists_of_numbers_are_checked(text: str):
    with pytest.raises(InputError, match=r"--seeds .*: not a list of different numbers"):
        parse_numbers(text, "--seeds")


def test_seed_fold_and_place_do_not_identify_a_protocol(resolved: dict, identity: dict):
    other = json.loads(json.dumps(resolved))
    other["seed_everything"] = 1
    other["data"]["init_args"]["fold"] = 0
    assert identify(other, build_data(other), "CMARR") == identity
    assert "store" not in identity["config"]["data"]["init_args"]
    assert resolved["data"]["init_args"]["fold"] == 3
    assert identity["synthetic"] is True
    assert identity["class_names"] == ["angry", "happy", "neutral", "sad"]


def test_a_folder_keeps_its_protocol(tmp_path: Path, identity: dict):
    folder = tmp_path / "out"
    keep_protocol(folder, identity)
    before = (folder / PROTOCOL).read_bytes()
    keep_protocol(folder, identity)
    assert (folder / PROTOCOL).read_bytes() == before


def test_another_configuration_in_the_folder_is_refused(tmp_path: Path, identity: dict):
    keep_protocol(tmp_path / "out", identity)
    before = (tmp_path / "out" / PROTOCOL).read_bytes()
    other = json.loads(json.dumps(identity))
    other["config"]["trainer"]["max_epochs"] = 30
    other["data_checksum"] = "other"
    with pytest.raises(InputError, match=r"data_checksum was \w+, is other; trainer.max_epochs was 2, is 30"):
        keep_protocol(tmp_path / "out", other)
    assert (tmp_path / "out" / PROTOCOL).read_bytes() == before


def test_the_folder_of_something_else_is_left_alone(tmp_path: Path, identity: dict):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        keep_protocol(tmp_path, identity)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_counts_of_other_seeds_may_wait_in_the_folder(tmp_path: Path, identity: dict):
    (tmp_path / "counts.json").write_text("{}")
    keep_protocol(tmp_path, identity)
    assert (tmp_path / PROTOCOL).is_file()


def test_a_run_records_what_it_stands_on(resolved: dict, identity: dict):
    about = run_about(identity, resolved, 2, 5)
    assert about["run"] == "fold-2_seed-5"
    assert (about["fold"], about["seed"], about["finished"]) == (2, 5, [])
    assert about["config"]["seed_everything"] == 5
    assert about["config"]["data"]["init_args"]["fold"] == 2
    assert about["data_checksum"] == identity["data_checksum"]
    assert "torch" in about["packages"]
    assert "commit" in about
    assert resolved["data"]["init_args"]["fold"] == 3
