from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.tasks.cmarr import CMARRTask


def task_for(data: FeatureDataModule, **options: Any) -> CMARRTask:
    names = data.modalities, data.feature_dims, data.class_names
    return CMARRTask(*names, embed_dim=16, num_heads=2, **options)


def at(task: CMARRTask, step: int, steps: int = 100) -> CMARRTask:
    """Put a task into a training of which some steps are done."""
    task._trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=steps, world_size=1)
    return task


@pytest.fixture(scope="module")
def data(gappy_store: Path) -> FeatureDataModule:
    return FeatureDataModule(str(gappy_store), batch_size=40)


@pytest.fixture(scope="module")
def batch(data: FeatureDataModule) -> MultimodalBatch:
    """40 training rows that have and lack all sorts of modalities, with drawn conditions."""
    data.trainer = None
    found: MultimodalBatch = next(iter(data.train_dataloader()))
    assert not found.observed.all()
    assert not torch.equal(found.drawn, found.observed)
    return found


def test_the_phases_of_the_staged_schedule(data: FeatureDataModule):
    task = task_for(data, schedule="staged")
    assert [at(task, step).phase() for step in (0, 19, 20, 39, 40, 100)] == [
        *("align", "align"), *("flows", "flows"), *("joint", "joint"),
    ]  # fmt: skip
    assert [at(task, step).ramp() for step in (0, 20, 40)] == [0, 1, 1]


def test_the_joint_schedule_has_one_phase_and_starts_with_alignment(data: FeatureDataModule):
    task = task_for(data)
    assert {at(task, step).phase() for step in (0, 20, 40, 100)} == {"joint"}
    assert [at(task, step).ramp() for step in (0, 5, 10, 50)] == pytest.approx([0, 0.5, 1, 1])


def rows(table: Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in table.int().tolist()}


def test_all_conditions_are_what_an_utterance_allows_the_drawn_one_among_them(
    data: FeatureDataModule, batch: MultimodalBatch
):
    present = at(task_for(data), 50).training_conditions(batch)
    assert present.shape == (40, 7, 3)
    for b in range(40):
        has = batch.observed[b]
        assert rows(present[b]) == {
            tuple(row) for row in (has.int() * torch.tensor(list(np.ndindex(2, 2, 2)))).tolist()
        } - ({(0, 0, 0)} if has.all() else set())
        assert tuple(batch.drawn[b].int().tolist()) in rows(present[b])


def test_drawn_conditions_are_the_complete_one_and_the_drawn_one(data: FeatureDataModule, batch: MultimodalBatch):
    present = at(task_for(data, train_conditions="drawn"), 50).training_conditions(batch)
    assert torch.equal(present[:, 0], batch.observed)
    assert torch.equal(present[:, 1], batch.drawn)


@pytest.mark.parametrize("conditions", ["all", "drawn"])
def test_the_condition_that_was_drawn_is_refined(
    data: FeatureDataModule, batch: MultimodalBatch, conditions: str, monkeypatch: pytest.MonkeyPatch
):
    task = at(task_for(data, train_conditions=conditions), 50)
    given: list[Tensor] = []

    def forward(features: object, padding_mask: object, present: Tensor, refined: Tensor) -> None:
        given.extend([present, refined])
        raise InterruptedError

    monkeypatch.setattr(task.network, "forward", forward)
    with pytest.raises(InterruptedError):
        task.training_step(batch, 0)
    present, refined = given
    assert torch.equal(present[torch.arange(40), refined], batch.drawn)


def test_alignment_comes_first_on_whatever_is_there(data: FeatureDataModule, batch: MultimodalBatch):
    present = at(task_for(data, schedule="staged"), 0).training_conditions(batch)
    assert torch.equal(present, batch.observed.unsqueeze(1))


def test_one_process_gathers_nothing(data: FeatureDataModule):
    tensor = torch.rand(3, 2)
    assert at(task_for(data), 0).gather()(tensor) is tensor


class Snapshots(pl.Callback):
    """Keeps all parameters after every step, and the phase in which the step was taken."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.kept: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, task: CMARRTask, *_: Any) -> None:  # type: ignore[override]
        self.phases.append(task.phase())
        if not self.kept:
            self._keep(task)

    def on_train_batch_end(self, trainer: pl.Trainer, task: CMARRTask, *_: Any) -> None:  # type: ignore[override]
        self._keep(task)

    def _keep(self, task: CMARRTask) -> None:
        self.kept.append({name: p.detach().clone() for name, p in task.named_parameters()})

    def changed(self, phase: str, part: Literal["flow", "rest"]) -> set[str]:
        """Name the parameters that the steps of a phase changed."""
        return {
            name
            for step, name_of in enumerate(self.phases)
            for name in self.kept[0]
            if name_of == phase
            and name.startswith("network.flow.") == (part == "flow")
            and not torch.equal(self.kept[step][name], self.kept[step + 1][name])
        }


@pytest.fixture(scope="module")
def snapshots(tiny_store: Path) -> Snapshots:
    """A staged training of ten steps on utterances that lack nothing."""
    data = FeatureDataModule(str(tiny_store), batch_size=40)
    pl.seed_everything(0)
    watch = Snapshots()
    trainer = pl.Trainer(
        max_steps=10,
        limit_val_batches=0,
        accelerator="cpu",
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task_for(data, schedule="staged"), datamodule=data)
    return watch


def test_the_staged_schedule_trains_in_order(snapshots: Snapshots):
    assert snapshots.phases == ["align"] * 2 + ["flows"] * 2 + ["joint"] * 6
    assert len(snapshots.changed("align", "rest")) > 20
    assert not snapshots.changed("align", "flow")
    assert len(snapshots.changed("joint", "rest")) > 20
    assert len(snapshots.changed("joint", "flow")) > 10


def test_the_flow_phase_trains_the_flows_alone(snapshots: Snapshots):
    assert len(snapshots.changed("flows", "flow")) > 10
    assert not snapshots.changed("flows", "rest")


def test_the_flows_stay_the_identity_while_the_rest_is_aligned(snapshots: Snapshots):
    """A coupling is the identity as long as its last layer is zero, which
    weight decay does not change."""
    zero_at_first = [name for name, value in snapshots.kept[0].items() if "flow" in name and not value.any()]
    assert len(zero_at_first) >= 6
    after = snapshots.kept[2]
    assert not any(after[name].any() for name in zero_at_first)
