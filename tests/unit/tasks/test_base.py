from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.tasks import CMARRTask, FusionTask, IFMMINTask, MMINTask, NMERTask
from cmarr_lightning.tasks.base import EmotionTask

WriteStore = Callable[..., FeatureStore]


class ReadsOff(EmotionTask):
    """Predicts the class that is written into the first feature of m0, whatever is present."""

    def __init__(self, num_modalities: int = 2, balance_classes: float = 0.0, **options: Any) -> None:
        modalities = [f"m{i}" for i in range(num_modalities)]
        settings: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.1, "warmup_fraction": 0.1} | options
        super().__init__(
            modalities, {m: 4 + i for i, m in enumerate(modalities)}, ["angry", "happy", "neutral", "sad"],
            balance_classes=balance_classes, **settings,
        )  # fmt: skip
        self.save_hyperparameters({name: getattr(self, name) for name in ("modalities", "feature_dims", "class_names")})
        self.layer = nn.Linear(2, 2)
        self.scaler = nn.ModuleDict({m: FeatureScaler(4 + i) for i, m in enumerate(modalities)})

    def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        predicted = batch.features["m0"][:, 0, 0].long().clamp(0, 3)
        return nn.functional.one_hot(predicted, 4).float().unsqueeze(1).expand(-1, present.shape[1], -1)

    def scalers(self) -> dict[str, FeatureScaler]:
        return {m: self.scaler[m] for m in self.modalities}  # type: ignore[misc]

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        return self.layer.weight.sum() * 0.0


def batch(
    predicted: list[int], labels: list[int], observed: list[list[int]], repeated: list[int] | None = None
) -> MultimodalBatch:
    present = torch.tensor(observed, dtype=torch.bool)
    rows = len(labels)
    first = torch.zeros(rows, 1, 4)
    first[:, 0, 0] = torch.tensor(predicted)
    return MultimodalBatch(
        features={"m0": first, "m1": torch.zeros(rows, 1, 5)},
        padding_mask={m: torch.zeros(rows, 1, dtype=torch.bool) for m in ("m0", "m1")},
        observed=present,
        drawn=present,
        labels=torch.tensor(labels),
        rows=torch.arange(rows),
        repeated=torch.tensor(repeated or [0] * rows, dtype=torch.bool),
    )


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **options)


@pytest.fixture
def attach() -> Callable[..., ReadsOff]:
    """Give a task a stand-in of a trainer with the named properties."""
    kept = []

    def attached(task: ReadsOff, **properties: Any) -> ReadsOff:
        kept.append(SimpleNamespace(**{"precision": "32-true", "datamodule": None, **properties}))
        task._trainer = kept[-1]
        return task

    return attached


# -- scoring --------------------------------------------------------------------------------------------------


def test_rows_filled_in_for_other_processes_and_unlabelled_rows_are_not_scored():
    task = ReadsOff()
    task.test_step(batch([0, 1, 1, 2], [0, 1, 1, -1], [[1, 1]] * 4, repeated=[0, 0, 1, 0]), 0)
    assert task.scored.confusion.sum(dim=(1, 2)).tolist() == [2, 2, 2]
    assert task.scored_available.confusion.sum() == 2
    assert task.scored.confusion[0].diagonal().tolist() == [1, 1, 0, 0]


def test_rows_that_lack_a_modality_count_as_available_only():
    task = ReadsOff()
    task.validation_step(batch([0, 1, 2], [0, 1, 3], [[1, 1], [1, 0], [1, 0]]), 0)
    assert task.scored.confusion.sum(dim=(1, 2)).tolist() == [1, 1, 1]
    assert task.scored_available.confusion[0].nonzero().tolist() == [[0, 0], [1, 1], [3, 2]]


def test_an_evaluation_forgets_the_one_before():
    task = ReadsOff()
    for start in (task.on_validation_epoch_start, task.on_test_epoch_start):
        task.test_step(batch([0], [0], [[1, 1]]), 0)
        start()
        assert not task.scored.confusion.any()
        assert not task.scored_available.confusion.any()


@pytest.mark.parametrize("lacking", [False, True])
def test_available_is_logged_only_where_something_is_missing(write_store: WriteStore, tmp_path: Path, lacking: bool):
    observed = np.ones((80, 2), dtype=bool)
    observed[4, 1] = not lacking
    data = FeatureDataModule(str(write_store(tmp_path / "store", observed).path), fold=0)
    (logged,) = trainer().test(ReadsOff(), datamodule=data, verbose=False)
    conditions = {"m0", "m1", "m0+m1"} | ({"available"} if lacking else set())
    expected = {f"test/{key}/{name}" for key in ("war", "uar", "f1") for name in conditions}
    assert set(logged) == expected | {f"test/{key}_missing_mean" for key in ("war", "uar", "f1")}


def test_without_a_complete_row_conditions_cannot_be_compared(write_store: WriteStore, tmp_path: Path):
    observed = np.zeros((80, 2), dtype=bool)
    observed[np.arange(80), np.arange(80) // 4 % 2] = True
    data = FeatureDataModule(str(write_store(tmp_path / "store", observed).path))
    with pytest.raises(InputError, match=r"no utterance has all of m0, m1.*data\.modalities"):
        trainer().test(ReadsOff(), datamodule=data, verbose=False)


def test_the_sanity_check_logs_nothing(write_store: WriteStore, tmp_path: Path):
    data = FeatureDataModule(str(write_store(tmp_path / "store", np.ones((80, 2), bool)).path), batch_size=8)
    fit = trainer(max_epochs=1, limit_train_batches=1, num_sanity_val_steps=2)
    seen = []

    class Watch(pl.Callback):
        def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(dict(trainer.callback_metrics))

    fit.callbacks.append(Watch())
    fit.fit(ReadsOff(), datamodule=data)
    assert seen == [{}]
    assert "val/uar_missing_mean" in fit.callback_metrics


# -- prediction -----------------------------------------------------------------------------------------------


def test_a_batch_is_completed_in_the_order_of_the_task():
    given = batch([1, 2], [0, 1], [[1, 1], [0, 1]])
    assert given.completed({"m0": 4, "m1": 5}) is given
    whole = given.completed({"m1": 5, "new": 7, "m0": 4})
    assert list(whole.features) == list(whole.padding_mask) == ["m1", "new", "m0"]
    assert whole.features["new"].shape == (2, 1, 7)
    assert not whole.padding_mask["new"].any()
    assert whole.observed.tolist() == whole.drawn.tolist() == [[True, False, True], [True, False, False]]
    assert whole.features["m0"] is given.features["m0"]


@pytest.mark.parametrize(
    ("modality", "dims", "message"),
    [("m7", 4, "trained on m0, m1.*leave it out"), ("m1", 6, "m1 of the data has 6 dims per frame.*trained on 5")],
)
def test_prediction_refuses_other_features(attach: Callable[..., ReadsOff], modality: str, dims: int, message: str):
    data = SimpleNamespace(feature_dims={"m0": 4, modality: dims}, feature_kinds={"m0": "vector", modality: "sequence"})
    task = attach(ReadsOff(), datamodule=data)
    with pytest.raises(InputError, match=message):
        task.setup("predict")


def test_prediction_tells_which_conditions_an_utterance_allows():
    predicted = ReadsOff().predict_step(batch([0, 1, 2], [-1, -1, -1], [[1, 1], [1, 0], [0, 1]]), 0)
    assert predicted["usable"].int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 0]]
    assert predicted["probabilities"].shape == (3, 3, 4)
    torch.testing.assert_close(predicted["probabilities"].sum(dim=-1), torch.ones(3, 3))
    assert predicted["probabilities"][:, -1].argmax(dim=-1).tolist() == [0, 1, 2]


# -- set-up ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_class_weights_follow_the_training_counts(
    attach: Callable[..., ReadsOff], write_store: WriteStore, tmp_path: Path, exponent: float
):
    labels = ["angry"] * 40 + ["happy"] * 20 + ["neutral"] * 12 + ["sad"] * 8
    data = FeatureDataModule(str(write_store(tmp_path / "store", np.ones((80, 2), bool), labels).path))
    counts = torch.from_numpy(data.class_counts).double()
    assert counts.tolist() == [20, 10, 6, 4]  # of 2 of the 4 sessions
    task = attach(ReadsOff(balance_classes=exponent), datamodule=data)
    task.setup("fit")
    weight = task.class_weight.double()
    assert (weight * counts).sum() / counts.sum() == pytest.approx(1)
    torch.testing.assert_close(weight * counts**exponent, (weight * counts**exponent)[:1].expand(4))


def test_scalers_get_the_statistics_of_the_training_rows_and_only_in_fit(
    attach: Callable[..., ReadsOff], write_store: WriteStore, tmp_path: Path
):
    store = write_store(tmp_path / "store", np.ones((80, 2), bool))
    data = FeatureDataModule(str(store.path), clip_quantile=0.0)
    task = attach(ReadsOff(), datamodule=data)
    task.setup("test")
    assert torch.equal(task.scalers()["m1"].mean, torch.zeros(5))
    task.setup("fit")
    training = store.values("m1")[data.split.train]
    torch.testing.assert_close(task.scalers()["m1"].mean, torch.from_numpy(training.mean(axis=0)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine"])
def test_half_precision_is_refused_in_every_stage(attach: Callable[..., ReadsOff], precision: str):
    for stage in ("fit", "validate", "test", "predict"):
        with pytest.raises(InputError, match=f"trainer.precision={precision}"):
            attach(ReadsOff(), precision=precision).setup(stage)


def test_training_needs_a_data_module(attach: Callable[..., ReadsOff]):
    with pytest.raises(InputError, match="no data module"):
        attach(ReadsOff()).setup("fit")


def checkpoint(task: EmotionTask, **changes: Any) -> dict[str, Any]:
    signature = {name: getattr(task, name) for name in ("modalities", "feature_dims", "class_names")}
    return {"hyper_parameters": signature | changes, "state_dict": dict(task.state_dict())}


def test_a_checkpoint_of_the_same_task_is_accepted():
    ReadsOff().on_load_checkpoint(checkpoint(ReadsOff()))


@pytest.mark.parametrize(
    "change",
    [
        {"modalities": ["m1", "m0"]},
        {"feature_dims": {"m0": 4, "m1": 6}},
        {"class_names": ["sad", "angry", "happy", "neutral"]},
        {"class_names": None},
    ],
)
def test_a_checkpoint_for_other_data_is_refused_by_name(change: dict[str, Any]):
    (name,) = change
    with pytest.raises(InputError, match=name):
        ReadsOff().on_load_checkpoint(checkpoint(ReadsOff(), **change))


def test_a_checkpoint_of_another_network_is_refused_by_name():
    other = checkpoint(ReadsOff())
    other["state_dict"]["layer.weight"] = torch.zeros(3, 2)
    with pytest.raises(InputError, match=r"layer.weight has the shape \(3, 2\) in it, but \(2, 2\)"):
        ReadsOff().on_load_checkpoint(other)
    del other["state_dict"]["layer.weight"]
    with pytest.raises(InputError, match=r"layer.weight has the shape None"):
        ReadsOff().on_load_checkpoint(other)


# -- optimiser ------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_to_nothing(attach: Callable[..., ReadsOff]):
    task = attach(ReadsOff(warmup_fraction=0.1), estimated_stepping_batches=100)
    factors = [task.learning_rate_factor(step) for step in range(101)]
    peak = int(np.argmax(factors))
    assert 0 < factors[0] < 0.15
    assert 8 <= peak <= 11
    assert 0.9 < factors[peak] <= 1
    assert (np.diff(factors[: peak + 1]) > 0).all()
    assert (np.diff(factors[peak:]) < 0).all()
    assert factors[50] == pytest.approx(0.5, abs=0.01)
    assert factors[100] == pytest.approx(0, abs=1e-12)


def test_without_warm_up_the_first_step_has_the_peak_rate(attach: Callable[..., ReadsOff]):
    task = attach(ReadsOff(warmup_fraction=0.0), estimated_stepping_batches=100)
    assert task.learning_rate_factor(0) == 1


def test_the_schedule_goes_step_by_step_and_only_matrices_decay(attach: Callable[..., ReadsOff]):
    task = attach(ReadsOff(), estimated_stepping_batches=100)
    configured: Any = task.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    decay = {id(p): group["weight_decay"] for group in configured["optimizer"].param_groups for p in group["params"]}
    assert decay == {id(task.layer.weight): 0.1, id(task.layer.bias): 0.0}


def test_training_without_an_end_is_refused(attach: Callable[..., ReadsOff]):
    with pytest.raises(InputError, match=r"trainer\.max_epochs"):
        attach(ReadsOff(), estimated_stepping_batches=float("inf")).configure_optimizers()


def test_progress_runs_from_zero_to_one(attach: Callable[..., ReadsOff]):
    progress = [
        attach(ReadsOff(), estimated_stepping_batches=10, global_step=step).progress() for step in (0, 5, 10, 11)
    ]
    assert progress == [0, 0.5, 1, 1]


# -- random numbers -------------------------------------------------------------------------------------------


def test_random_numbers_depend_on_seed_epoch_batch_and_process_only(
    attach: Callable[..., ReadsOff], write_store: WriteStore, tmp_path: Path
):
    data = FeatureDataModule(str(write_store(tmp_path / "store", np.ones((80, 2), bool)).path))
    one = batch([0], [0], [[1, 1]])

    def draw(seed: int = 0, epoch: int = 0, number: int = 0, rank: int = 0) -> float:
        torch.manual_seed(seed)
        task = attach(ReadsOff(), datamodule=data, current_epoch=epoch, global_rank=rank)
        task.setup("fit")
        torch.rand(7)  # whatever was drawn before
        task.on_train_batch_start(one, number)
        return float(torch.rand(()))

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(epoch=1), draw(number=1), draw(rank=1)}) == 5


@pytest.mark.parametrize(
    ("task", "settings", "name"),
    [
        (ReadsOff, {}, "ReadsOff"),
        (CMARRTask, {}, "CM-ARR"),
        (IFMMINTask, {"recipe": "published"}, "IF-MMIN"),
        (MMINTask, {}, "MMIN"),
        (NMERTask, {"recipe": "shared"}, "NMER (shared recipe)"),
        (FusionTask, {}, "zero imputation"),
        (FusionTask, {"imputation": "mean", "train_conditions": "complete"}, "mean imputation"),
        (FusionTask, {"imputation": "mean", "train_conditions": "drawn"}, "modality dropout"),
    ],
)
def test_methods_are_named_in_tables(task: type[EmotionTask], settings: dict[str, str], name: str):
    assert task.method_name(settings) == name


def test_logits_that_are_not_finite_are_not_scored(write_store: WriteStore, tmp_path: Path):
    class Diverged(ReadsOff):
        def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
            return super().network_logits(batch, present) / 0.0

    data = FeatureDataModule(str(write_store(tmp_path / "store", np.ones((80, 2), bool)).path), batch_size=8)
    with pytest.raises(InputError, match=r"test: the logits are not finite.*the training has diverged"):
        trainer().test(Diverged(), datamodule=data, verbose=False)
