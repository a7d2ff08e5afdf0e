from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.tasks import FusionTask


@pytest.fixture(scope="module")
def data(gappy_store: Path) -> FeatureDataModule:
    found = FeatureDataModule(str(gappy_store), batch_size=40)
    found.trainer = None
    return found


def task_for(data: FeatureDataModule, **options: Any) -> FusionTask:
    return FusionTask(data.modalities, data.feature_dims, data.class_names, embed_dim=16, **options)


def test_the_conditions_of_training(data: FeatureDataModule):
    batch: MultimodalBatch = next(iter(data.train_dataloader()))
    present = {name: task_for(data, train_conditions=name).training_conditions(batch) for name in ("drawn", "all")}
    assert torch.equal(task_for(data).training_conditions(batch), batch.observed.unsqueeze(1))
    assert torch.equal(present["drawn"], batch.drawn.unsqueeze(1))
    assert present["all"].shape == (40, 7, 3)


def test_the_loss_is_the_cross_entropy_of_those_conditions(data: FeatureDataModule):
    batch: MultimodalBatch = next(iter(data.train_dataloader()))
    task = task_for(data, train_conditions="drawn", label_smoothing=0.0).eval()
    logits = task.network_logits(batch, batch.drawn.unsqueeze(1))[:, 0]
    torch.testing.assert_close(task.training_step(batch, 0), cross_entropy(logits, batch.labels))
