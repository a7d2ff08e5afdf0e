"""Two stages in one training: a teacher on complete data, then its student."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.errors import InputError
from cmarr_lightning.models.two_stage import TwoStageNetwork
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["TaughtTask"]


class TaughtTask(EmotionTask):
    """The stages of a task whose network has a teacher and a student: when they change, who teaches, what is kept.

    The teacher's epoch of the highest UAR on the complete validation rows teaches; without validation the last one. The
    student starts from its encoders, with the teacher frozen.

    Args:
        stage1_epochs: Epochs of stage 1. For the other arguments see `EmotionTask`.
    """

    network: TwoStageNetwork

    def __init__(
        self,
        modalities: list[str],
        feature_dims: dict[str, int],
        class_names: list[str],
        learning_rate: float,
        weight_decay: float,
        warmup_fraction: float,
        balance_classes: float,
        stage1_epochs: int,
    ) -> None:
        super().__init__(
            modalities, feature_dims, class_names, learning_rate, weight_decay, warmup_fraction, balance_classes
        )
        if stage1_epochs < 0:
            raise InputError(f"model.stage1_epochs is {stage1_epochs}", remedy="set it to 0 or more")
        self.stage1_epochs = stage1_epochs
        self.stage: Literal[1, 2] = 1
        self._best_uar = -1.0
        self._best_teacher: dict[str, Tensor] | None = None
        self._candidate: dict[str, Tensor] = {}

    def begins_anew(self, epoch: int) -> bool:
        """Tell whether stage 2 begins with this epoch."""
        return self.stage == 1 and epoch >= self.stage1_epochs

    def on_train_epoch_start(self) -> None:
        """Begin stage 2 when it is time: the best teacher hands over its encoders and is frozen."""
        if not self.begins_anew(self.current_epoch):
            return
        if self._best_teacher is not None:
            self.network.teacher.load_state_dict(self._best_teacher)
        self.network.begin_student()
        self.stage, self._best_teacher = 2, None

    def validation_step(self, batch: MultimodalBatch, batch_idx: int) -> None:
        """Score the teacher on complete rows in stage 1, the student under every condition in stage 2."""
        if self.stage == 2:
            super().validation_step(batch, batch_idx)
            return
        logits = self.network.complete_logits(batch.features, batch.padding_mask, batch.observed)
        self.scored_available.update(logits.unsqueeze(1), self._complete_labels(batch))

    def on_validation_epoch_start(self) -> None:
        """Keep the weights that are about to be scored: the averaged ones if there are such."""
        super().on_validation_epoch_start()
        if self.stage == 1:
            self._candidate = {
                name: value.detach().clone() for name, value in self.network.teacher.state_dict().items()
            }

    def on_validation_epoch_end(self) -> None:
        """Log the scores; choose the teacher."""
        if self.stage == 2:
            super().on_validation_epoch_end()
            return
        values = self.scored_available.compute()
        if self.trainer.sanity_checking:
            return
        if values["uar/available"].isnan():
            raise self._nothing_complete("val")
        if values["uar/available"] > self._best_uar:
            self._best_uar, self._best_teacher = float(values["uar/available"]), self._candidate
        self.log_dict({f"val/stage1_{name}": values[f"{name}/available"] for name in ("war", "uar")})
        self.log(self.monitor, torch.nan)

    # -- checkpoints ----------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the stage and the best teacher so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["two_stage"] = {"stage": self.stage, "best_uar": self._best_uar, "best_teacher": self._best_teacher}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the stage; refuse to score a student that has not begun, or to change the stages' lengths."""
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint["two_stage"]
        doing = None if self._trainer is None else self._trainer.state.fn
        if doing == TrainerFn.FITTING:
            if (before := checkpoint["hyper_parameters"]["stage1_epochs"]) != self.stage1_epochs:
                raise InputError(
                    f"model.stage1_epochs is {self.stage1_epochs}, but the run began with {before}",
                    remedy="keep the lengths of the stages, or train anew",
                )
        elif doing is not None and kept["stage"] == 1:
            raise InputError(
                f"checkpoint of stage 1 (epoch {checkpoint['epoch']} of {self.stage1_epochs}): there is no student yet",
                remedy="go on with the training by `cmarr fit --ckpt_path last`",
            )
        self.stage, self._best_uar, self._best_teacher = kept["stage"], kept["best_uar"], kept["best_teacher"]
        if self.stage == 2:
            self.network.freeze_teacher()
