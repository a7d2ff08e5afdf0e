"""What every method shares: scaling, optimiser, compatibility of checkpoints, and the scores of `ScoredModule`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.errors import InputError
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.tasks.recipes import decay_matrices
from cmarr_lightning.tasks.schedules import warmup_cosine
from cmarr_lightning.tasks.scoring import ScoredModule

__all__ = ["EmotionTask"]

_FRAME = {"sequence": "frame", "vector": "utterance"}
_SIGNATURE = ("modalities", "feature_dims", "class_names")


class EmotionTask(ScoredModule):
    """Base of all methods: a subclass gives `network_logits`, `scalers` and `training_step`.

    Models are selected by `val/uar_missing_mean`; what is logged in evaluation says `ScoredModule`.

    Args:
        modalities: M names in the order of the data; linked from the data module by the command line.
        feature_dims: D per modality; linked.
        class_names: C names in the order of their index; linked.
        learning_rate: Peak of AdamW's learning rate, per step.
        weight_decay: Of the weight matrices; vectors (biases, gains) and parameters with a scalar value are free.
        warmup_fraction: Part of all steps over which the rate rises linearly; it then falls along a half cosine.
        balance_classes: Exponent g of the class weights n_c^-g in the cross-entropy: 0 weighs utterances equally
            (favours WAR), 1 weighs classes equally (favours UAR).
    """

    title = ""
    """Name of the method; by default that of the class without `Task`."""
    monitor = "val/uar_missing_mean"
    mode = "max"
    average_decay = 0.99
    """Decay of the averaged weights (`ema.decay`) that the recipe of the method asks for; 0 = no averaging."""

    def __init__(
        self,
        modalities: list[str],
        feature_dims: dict[str, int],
        class_names: list[str],
        learning_rate: float,
        weight_decay: float,
        warmup_fraction: float,
        balance_classes: float,
    ) -> None:
        super().__init__(modalities, class_names)
        self.feature_dims = {m: feature_dims[m] for m in modalities}
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.balance_classes = balance_classes
        self.register_buffer("class_weight", torch.ones(len(class_names)))
        self._seed = 0

    class_weight: Tensor

    @classmethod
    def method_name(cls, settings: Mapping[str, Any]) -> str:
        """Name the method in tables.

        Args:
            settings: What the task is made with, by the names of the arguments.
        """
        return cls.title or cls.__name__.removesuffix("Task")

    def scalers(self) -> dict[str, FeatureScaler]:
        """Return the modules that scale the features, by modality name."""
        raise NotImplementedError(f"{type(self).__name__} must define scalers")

    def begins_anew(self, epoch: int) -> bool:
        """Tell whether this epoch starts from other weights than the last one left: no average goes across that."""
        return False

    def training_conditions(self, batch: MultimodalBatch) -> Tensor:
        """Return present (B, K, M) bool: what a training step lets the network read; by default every condition."""
        return self.present(batch)

    # -- set-up ---------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take over what must come from the training rows; refuse precisions in which a flow has no inverse."""
        super().setup(stage)
        if str(self.trainer.precision) in {"bf16-true", "16-true", "transformer-engine"}:
            raise InputError(
                f"trainer.precision={self.trainer.precision}: a flow is not invertible in half precision",
                remedy="use 32-true or bf16-mixed",
            )
        if stage == "predict" and hasattr(self.trainer, "datamodule"):
            self._refuse_other_features()
        if stage != "fit":
            return
        if absent := [name for name in _SIGNATURE if name not in self.hparams]:
            raise InputError(
                f"{type(self).__name__} keeps no {absent[0]}, so that its checkpoints could not be loaded",
                remedy="call self.save_hyperparameters() in its constructor",
            )
        self._seed = torch.initial_seed()
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise InputError(
                "no data module: scaling statistics and class counts come from it",
                remedy="call trainer.fit(task, datamodule=...) with a FeatureDataModule",
            )
        for modality, scaler in self.scalers().items():
            s = data.statistics[modality]
            scaler.fit(*(torch.from_numpy(np.array(a)) for a in (s.mean, s.std, s.low, s.high)))
        counts = torch.from_numpy(np.asarray(data.class_counts)).float()
        weight = counts.pow(-self.balance_classes)
        self.class_weight.copy_(weight * counts.sum() / (weight * counts).sum())

    def predict_step(self, batch: MultimodalBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return what `ScoredModule.predict_step` does; the data may lack modalities, or have them in another order."""
        return super().predict_step(batch.completed(self.feature_dims), batch_idx)

    def _refuse_other_features(self) -> None:
        """Prediction needs no more of the data than that what they have is what the network was trained on."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        kinds = self.hparams.get("feature_kinds", data.feature_kinds)
        for modality, dim in data.feature_dims.items():
            if modality not in self.feature_dims:
                raise InputError(
                    f"the data have {modality!r}, but the task was trained on {', '.join(self.modalities)}",
                    remedy="leave it out with the `modalities` of the data",
                )
            ours, theirs = (self.feature_dims[modality], kinds[modality]), (dim, data.feature_kinds[modality])
            if ours != theirs:
                raise InputError(
                    f"{modality} of the data has {theirs[0]} dims per {_FRAME[theirs[1]]}, but the task was trained on "
                    f"{ours[0]} per {_FRAME[ours[1]]}",
                    remedy="extract the features as for training",
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which rows were trained on."""
        if data := getattr(self.trainer, "datamodule", None):
            checkpoint["trained_on"] = data.identity
            checkpoint["trained_rows"] = torch.from_numpy(data.row_keys(data.split.train))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint made for other modalities, dims, classes, rows or another network, by name."""
        stored = checkpoint["hyper_parameters"]
        for key in _SIGNATURE:
            mine = getattr(self, key)
            if stored.get(key) != mine:
                raise InputError(
                    f"checkpoint made for {key} = {stored.get(key)}, but the data have {key} = {mine}",
                    remedy="give the data the checkpoint was trained on, or train anew",
                )
        theirs, ours = (
            {k: tuple(v.shape) for k, v in s.items()} for s in (checkpoint["state_dict"], self.state_dict())
        )
        if differing := sorted(k for k in theirs | ours if theirs.get(k) != ours.get(k)):
            raise InputError(
                f"checkpoint of another network: {differing[0]} has the shape {theirs.get(differing[0])} in it, but "
                f"{ours.get(differing[0])} in {type(self).__name__} as configured",
                remedy="use the model settings of the run, which its config.yaml holds",
            )
        self._refuse_other_rows(checkpoint.get("trained_on", {}), checkpoint.get("trained_rows"))

    def _refuse_other_rows(self, trained_on: dict[str, Any], trained_rows: Tensor | None) -> None:
        """Training goes on with the same rows, and a corpus is scored on the fold that was held out of it."""
        data = getattr(self._trainer, "datamodule", None)
        if data is None or self.trainer.state.fn == TrainerFn.PREDICTING:
            return
        ours = data.identity
        same_corpus = trained_on.get("data_checksum") == ours["data_checksum"]
        if self.trainer.state.fn != TrainerFn.FITTING and not same_corpus:
            return
        for key, mine in ours.items():
            if trained_on.get(key) != mine:
                raise InputError(
                    f"checkpoint trained on {key} = {trained_on.get(key)}, but the data have {key} = {mine}",
                    remedy="give the data and the fold that the checkpoint was trained on, or train anew",
                )
        if trained_rows is None:
            return
        if self.trainer.state.fn == TrainerFn.FITTING:
            wrong = not np.array_equal(trained_rows.numpy(), data.row_keys(data.split.train))
        else:
            part = data.split.test if self.trainer.state.fn == TrainerFn.TESTING else data.split.val
            wrong = bool(np.isin(data.row_keys(part), trained_rows.numpy()).any())
        if wrong:
            raise InputError(
                "the checkpoint was trained on other utterances than the data would split off for training, or on some "
                "that are to be scored",
                remedy="give the data the filters, classes and folds of the training, or train anew",
            )

    def on_train_batch_start(self, batch: MultimodalBatch, batch_idx: int) -> None:
        """Seed dropout and sampling from (seed, epoch, batch, process).

        Lightning keeps no generator's state, so that a resumed run would draw other numbers than an uninterrupted
        one; and all processes would draw the same for their different rows.
        """
        entropy = (self._seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and half-cosine decay per step."""
        self.total_steps()
        groups = decay_matrices((p for p in self.parameters() if p.requires_grad), self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, fused=self.fused())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def fused(self) -> bool:
        """Tell whether one kernel may update all parameters.

        Lightning refuses to clip the gradients of such a step in mixed precision.
        """
        return self.device.type in {"cpu", "cuda"} and not str(self.trainer.precision).endswith("-mixed")

    def total_steps(self) -> int:
        """Return the number of optimiser steps of the whole training, at least 1.

        Raises:
            InputError: Training has no end.
        """
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise InputError(
                "training without an end: the learning rate falls until the last step",
                remedy="set trainer.max_epochs or trainer.max_steps",
            )
        return max(1, int(self.trainer.estimated_stepping_batches))

    def learning_rate_factor(self, step: int) -> float:
        """Return the factor in [0, 1] on the learning rate at an optimiser step."""
        return warmup_cosine(step, self.total_steps(), self.warmup_fraction)

    def progress(self) -> float:
        """Return the part of all optimiser steps that is done, in [0, 1]."""
        return min(1.0, self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches)))
