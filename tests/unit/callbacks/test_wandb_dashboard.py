"""The best checkpoint goes to W&B, once, and only where it can go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from cmarr_lightning.callbacks import LastCheckpoint, WandbDashboard


class Run:
    """What is asked of a W&B run."""

    id, disabled = "abc", False

    def __init__(self, *, offline: bool) -> None:
        self.offline = offline
        self.logged: list[tuple[Any, list[str]]] = []

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.logged.append((artifact, aliases))


@pytest.fixture
def trainer(tmp_path: Path) -> SimpleNamespace:
    """A trainer after a fit: its best checkpoint is not the last one."""
    best = ModelCheckpoint(monitor="val/uar_missing_mean", mode="max")
    best.best_model_path, best.best_model_score = str(tmp_path / "best-epoch=3.ckpt"), torch.tensor(0.75)
    (tmp_path / "best-epoch=3.ckpt").write_bytes(b"weights")
    callbacks = [LastCheckpoint(), best]
    return SimpleNamespace(
        is_global_zero=True, loggers=[], checkpoint_callbacks=callbacks, callback_metrics={"val/uar_missing_mean": 0.5}
    )


@pytest.mark.parametrize("offline", [False, True])
def test_the_best_checkpoint_is_an_artifact_when_online(trainer: SimpleNamespace, offline: bool):
    run = Run(offline=offline)
    trainer.loggers = [WandbLogger(experiment=run)]
    WandbDashboard().on_fit_end(trainer, None)
    if offline:
        assert run.logged == []
        return
    ((artifact, aliases),) = run.logged
    assert (artifact.name, artifact.type, aliases) == ("model-abc", "model", ["best"])
    assert artifact.metadata == {"val/uar_missing_mean": 0.75}
    assert list(artifact.manifest.entries) == ["best.ckpt"]


def test_a_training_without_validation_has_no_best_checkpoint(trainer: SimpleNamespace):
    run = Run(offline=False)
    trainer.loggers = [WandbLogger(experiment=run)]
    trainer.checkpoint_callbacks[1].best_model_path = ""
    WandbDashboard().on_fit_end(trainer, None)
    assert run.logged == []
