from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

Command = Callable[..., int]


def test_what_the_data_decided_is_filled_in_and_what_was_given_is_kept(
    cmarr: Command, config: Path, tiny_store: Path, tmp_path: Path
):
    given = ("--data.modalities", "[text,video]", "--data.merge", "{sad: angry}", "--trainer.max_epochs", "1")
    assert cmarr("fit", "-c", config, "--data.store", tiny_store, "--run", "run", *given) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    data = saved["data"]["init_args"]
    assert data["modalities"] == ["text", "video"]
    assert data["classes"] == ["angry", "happy", "neutral"]
    assert data["merge"] == {"sad": "angry"}
    assert saved["trainer"]["max_epochs"] == 1
    assert cmarr("test", "--run", "run") == 0


def test_a_development_run_does_not_take_the_folder(cmarr: Command, config: Path, tiny_store: Path, tmp_path: Path):
    fit = ("fit", "-c", config, "--data.store", tiny_store, "--run", "run")
    assert cmarr(*fit, "--trainer.fast_dev_run", "true") == 0
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert cmarr(*fit, "--trainer.max_epochs", "1") == 0


def test_scoring_does_not_touch_the_configuration(cmarr: Command, trained_run: Path, other_store: Path):
    before = (trained_run / "config.yaml").stat()
    assert cmarr("validate", "--run", "run", "--data.store", other_store, "--data.fold", "1") == 0
    after = (trained_run / "config.yaml").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
