"""The stages of one run, in the order they are due."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cmarr_lightning.crossval import run


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record what would be run; a stage called `fails` fails."""
    for name in ("GROUP", "JOB_TYPE", "NAME", "TAGS"):
        monkeypatch.setenv(f"WANDB_{'RUN_' if name == 'GROUP' else ''}{name}", "")  # so that it is put back
    words: list[list[str]] = []
    monkeypatch.setattr(run, "cmarr", lambda argv: words.append(argv) or 0)
    return words


def prepare(
    folder: Path, finished: list[str], devices: object = "auto", stages: tuple[str, ...] = ("fit", "validate", "test")
) -> Path:
    trainer = {"accelerator": "cpu", "devices": devices}
    about = {"method": "CMARR", "stages": stages, "finished": finished, "config": {"trainer": trainer}}
    folder.mkdir()
    (folder / "about.json").write_text(json.dumps(about))
    return folder


def finished(folder: Path) -> list[str]:
    return json.loads((folder / "about.json").read_text())["finished"]


def test_all_stages_of_a_new_run(tmp_path: Path, called: list[list[str]]):
    folder = prepare(tmp_path / "run", [])
    assert run.main([str(folder), "config.yaml", "3", "7"]) == 0
    assert [words[0] for words in called] == ["fit", "validate", "test"]
    for words in called:
        options = dict(zip(words[1::2], words[2::2], strict=True))
        assert options == {
            **{"-c": "config.yaml", "--run": str(folder)},
            **{"--seed_everything": "7", "--data.init_args.fold": "3"},
        }
    assert finished(folder) == ["fit", "validate", "test"]
    assert os.environ["WANDB_RUN_GROUP"] == f"{tmp_path.parent.name}/{tmp_path.name}"
    assert (os.environ["WANDB_JOB_TYPE"], os.environ["WANDB_NAME"]) == ("seed-7", "run")
    assert os.environ["WANDB_TAGS"] == "CMARR,fold-3,seed-7"


def test_finished_stages_stay(tmp_path: Path, called: list[list[str]]):
    folder = prepare(tmp_path / "run", ["fit"])
    assert run.main([str(folder), "config.yaml", "0", "0"]) == 0
    assert [words[0] for words in called] == ["validate", "test"]


def test_only_what_is_asked_for(tmp_path: Path, called: list[list[str]]):
    folder = prepare(tmp_path / "run", [], stages=("fit", "validate"))
    assert run.main([str(folder), "config.yaml", "0", "0"]) == 0
    assert [words[0] for words in called] == finished(folder) == ["fit", "validate"]


def test_training_goes_on_from_the_last_checkpoint(tmp_path: Path, called: list[list[str]]):
    folder = prepare(tmp_path / "run", [])
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    run.main([str(folder), "config.yaml", "0", "0"])
    assert called[0][-2:] == ["--ckpt_path", "last"]
    assert all("--ckpt_path" not in words for words in called[1:])


def test_a_failed_stage_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = prepare(tmp_path / "run", [])
    monkeypatch.setattr(run, "cmarr", lambda words: 2 if words[0] == "validate" else 0)
    assert run.main([str(folder), "config.yaml", "0", "0"]) == 2
    assert finished(folder) == ["fit"]


def test_several_devices_need_a_process_per_stage(
    tmp_path: Path, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    """Lightning repeats the command of a process for its further devices: it must do one stage only."""
    folder = prepare(tmp_path / "run", [], devices=2)
    commands: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(run.subprocess, "run", lambda command, check: commands.append(command) or Done())
    assert run.main([str(folder), "config.yaml", "0", "0"]) == 0
    assert not called
    assert [command[-1] for command in commands] == ["fit", "validate", "test"]
    assert finished(folder) == ["fit", "validate", "test"]
    run.main(commands[0][3:])
    assert [words[0] for words in called] == ["fit"]


def test_a_stage_that_sigterm_ends_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning's exception carries no code: it would end the process as if all was done."""

    def ended(*_: object) -> None:
        raise SIGTERMException

    monkeypatch.setattr("cmarr_lightning.stages.CMARRCLI", ended)
    folder = prepare(tmp_path / "run", [])
    assert run.main([str(folder), "config.yaml", "0", "0"]) == 143
    assert finished(folder) == []
