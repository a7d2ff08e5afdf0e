"""Averaged weights: the ones that are validated, tested and kept."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["AveragedWeights"]


class AveragedWeights(WeightAveraging):
    r"""Keep an exponential moving average of the weights over the optimiser steps.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta

    Validation sees the average, and checkpoints hold it as their `state_dict`. Buffers (scaling, class weights) are
    copied. Lightning's own `EMAWeightAveraging` does the same one tensor at a time, which costs a step of a small
    network several percent.

    Args:
        decay: d in [0, 1); 0: nothing is averaged or copied. By default what the recipe of the method asks for
            (`EmotionTask.average_decay`): 0.99, and 0 where a method is trained as it was published.

    Raises:
        ValueError: decay is not in [0, 1).
    """

    def __init__(self, decay: float | None = None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average once the method is known."""
        decay = getattr(pl_module, "average_decay", EmotionTask.average_decay) if self.decay is None else self.decay
        if decay == 0:
            self._average_model = None
            return
        self._kwargs["multi_avg_fn"] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every step, where there is an average."""
        return self._average_model is not None and super().should_update(step_idx, epoch_idx)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the average where training starts from other weights: the next step is copied."""
        average = self._average_model
        if average is not None and isinstance(pl_module, EmotionTask) and pl_module.begins_anew(trainer.current_epoch):
            average.n_averaged.zero_()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the average over to the model."""
        if self._average_model is not None:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the average the `state_dict` of the checkpoint."""
        if self._average_model is not None:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the weights of the last step and their average."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
