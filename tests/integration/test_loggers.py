"""What `-c experiments/configs/logger/*.yaml` switches on lands in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

Command = Callable[..., int]


@pytest.fixture
def fit(cmarr: Command, config: Path, tiny_store: Path, root: Path) -> Command:
    """Train one epoch as `run` with a file of experiments/configs/logger."""

    def train(run: str, logger: str) -> int:
        logger_config = root / "experiments" / "configs" / "logger" / logger
        return cmarr(
            "fit", "-c", config, "-c", logger_config, "--data.store", tiny_store, "--run", run,
            "--trainer.max_epochs", "1",
        )  # fmt: skip

    return train


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no account, no file of W&B's outside the test's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_csv_written_out_is_the_default(fit: Command, tmp_path: Path, trained_run: Path):
    assert fit("csv", "csv.yaml") == 0
    ours, default = (pd.read_csv(run / "logs" / "version_0" / "metrics.csv") for run in (tmp_path / "csv", trained_run))
    assert ours.columns.tolist() == default.columns.tolist()


@pytest.mark.usefixtures("offline")
def test_wandb_offline_keeps_every_stage_in_the_runs_own_folder(fit: Command, cmarr: Command, tmp_path: Path):
    assert fit("first", "wandb_offline.yaml") == 0
    assert fit("second", "wandb_offline.yaml") == 0
    assert cmarr("test", "--run", "second") == 0

    first, second = (_records(tmp_path / run) for run in ("first", "second"))
    assert [len(first), len(second)] == [1, 2]
    tested = [record for record in second if b"test/uar/" in record]
    assert len(tested) == 1
    for record in first + [record for record in second if record not in tested]:
        assert b"val/uar/" in record
        assert b"train/loss" in record
        assert b"FeatureDataModule" in record  # the whole configuration is part of the record
    assert b"test/uar/" not in first[0]
    outside = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert outside == {"first", "second"}
    for run in ("first", "second"):
        assert len(list((tmp_path / run / "checkpoints").iterdir())) == 2


def _records(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in run.glob("wandb/offline-run-*/*.wandb")]


def test_wandb_configurations_upload_no_checkpoints(root: Path):
    folder = root / "experiments" / "configs" / "logger"
    online, offline = (
        yaml.safe_load((folder / name).read_text())["trainer"]["logger"]
        for name in ("wandb.yaml", "wandb_offline.yaml")
    )
    assert online["class_path"] == offline["class_path"] == "lightning.pytorch.loggers.WandbLogger"
    assert offline["init_args"] == {**online["init_args"], "offline": True}
    assert online["init_args"]["log_model"] is False
    assert online["init_args"]["project"] == "cmarr-lightning"
