"""Averaged weights: the ones that are validated, tested and kept."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["AveragedWeights"]

_STATISTICS_BATCHES = 8
"""So many batches of an epoch give the statistics of batch normalisation: 1,000 rows of a usual batch of 128."""
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class AveragedWeights(WeightAveraging):
    r"""Keep an exponential moving average of the weights over the optimiser steps.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta

    Validation sees the average, and checkpoints hold it as their `state_dict`. Buffers (scaling, class weights) are
    copied. But the mean and variance that batch normalisation has gathered belong to the weights of the steps; those
    of the averaged weights are estimated before they are scored, from the last batches of the epoch.

    Lightning's own `EMAWeightAveraging` averages one tensor at a time, which costs a step of a small network several
    percent, and leaves batch normalisation as it is.

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
        self._recent: deque[MultimodalBatch] = deque(maxlen=_STATISTICS_BATCHES)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average once the method is known; forget that of an earlier training."""
        self._average_model = None
        decay = getattr(pl_module, "average_decay", EmotionTask.average_decay) if self.decay is None else self.decay
        if decay == 0:
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
        self._recent.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average; keep the batch where statistics will be estimated."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._average_model is not None and isinstance(pl_module, EmotionTask) and _batch_norms(pl_module):
            self._recent.append(batch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the average, under its own statistics."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._estimate_statistics(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the average over to the model."""
        if self._average_model is not None:
            super().on_train_end(trainer, pl_module)
            self._estimate_statistics(trainer, pl_module)
            self._recent.clear()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the average the `state_dict` of the checkpoint."""
        if self._average_model is not None:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the weights of the last step and their average."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @torch.no_grad()
    def _estimate_statistics(self, trainer: Trainer, task: LightningModule) -> None:
        """Give batch normalisation the mean and variance that its inputs have under the weights of the task now."""
        if not self._recent or not isinstance(task, EmotionTask):
            return
        norms, training = _batch_norms(task), task.training
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # all batches weigh the same
        task.train()
        with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
            torch.manual_seed(0)
            for batch in self._recent:
                task.network_logits(batch, task.training_conditions(batch))
        task.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            for statistic in (norm.running_mean, norm.running_var):
                if statistic is not None:
                    statistic.copy_(torch.as_tensor(trainer.strategy.reduce(statistic.clone(), reduce_op="mean")))


def _batch_norms(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]:
    return [part for part in module.modules() if isinstance(part, _BATCH_NORM) and part.track_running_stats]
