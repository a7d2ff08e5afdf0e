"""Both stages of each peer on the share of a process.

Run as `peers_worker.py STORE OUT` with RANK and WORLD_SIZE set. What it measures is saved as OUT/<rank>.pt, per peer.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from cmarr_lightning import FeatureDataModule
from cmarr_lightning.callbacks import AveragedWeights
from cmarr_lightning.tasks import IFMMINTask, MMINTask, NMERTask
from cmarr_lightning.tasks.two_stage import TwoStageTask

BATCH = 32
"""Rows of the global batch."""


class Still(TwoStageTask):
    """Without dropout, which draws other numbers in every process; notes the teacher's scores."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.teacher_scores: list[float] = []
        self.eval()

    def train(self, mode: bool = True) -> Still:
        return super().train(False)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.stage == 1 and not self.trainer.sanity_checking:
            self.teacher_scores.append(float(self.trainer.callback_metrics["val/stage1_uar"]))


class StillMMIN(Still, MMINTask):
    """MMIN with milder first weights: the published ones begin with a loss of 1e7, where rounding grows to chaos."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        with torch.no_grad():
            for cascade in (self.network.student.forward_cascade, self.network.student.backward_cascade):
                for decoder in cascade.decoders.parameters():
                    decoder.mul_(0.1)


class StillIFMMIN(Still, IFMMINTask):
    """IF-MMIN."""


class StillNMER(Still, NMERTask):
    """NMER."""


TASKS: dict[str, type[Still]] = {"MMIN": StillMMIN, "IF-MMIN": StillIFMMIN, "NMER": StillNMER}


def fit(store: str, name: str) -> tuple[Still, pl.Trainer, FeatureDataModule]:
    """Train two epochs of each stage, with averaged weights."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    pl.seed_everything(0, verbose=False)
    data = FeatureDataModule(store, batch_size=BATCH // processes, draw="incomplete", verify_checksums=False)
    task = TASKS[name](
        modalities=data.modalities,
        feature_dims=data.feature_dims,
        class_names=data.class_names,
        feature_kinds=data.feature_kinds,
        stage1_epochs=2,
        embed_dim=16,
        learning_rate=1e-3,
    )
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        strategy="auto" if processes == 1 else "ddp_find_unused_parameters_true",
        devices=processes,
        use_distributed_sampler=False,
        callbacks=[AveragedWeights(0.9)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=data)
    return task, trainer, data


def measure(store: str, name: str) -> dict[str, Any]:
    """Train and test."""
    task, trainer, data = fit(store, name)
    validated = {name: value.clone() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    weights = {name: value.clone() for name, value in task.network.state_dict().items()}  # a test makes them equal
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    return {
        "weights": weights,
        "teacher_scores": task.teacher_scores,
        "best_uar": task._best_uar,
        "validated": validated,
        "tested": tested,
        "confusion": task.scored.confusion.clone(),
        "optimizer": [state["step"] for state in task.optimizers().optimizer.state.values()],
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    measured = {name: measure(sys.argv[1], name) for name in TASKS}
    torch.save(measured, Path(sys.argv[2]) / f"{os.environ['RANK']}.pt")
