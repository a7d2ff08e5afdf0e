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


def test_csv_written_out_is_the_default(fit: Command, tmp_path: Path, trained_run: Path):
    assert fit("csv", "csv.yaml") == 0
    ours, default = (pd.read_csv(run / "logs" / "version_0" / "metrics.csv") for run in (tmp_path / "csv", trained_run))
    assert ours.columns.tolist() == default.columns.tolist()


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
