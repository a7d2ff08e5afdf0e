"""What a W&B dashboard shows beyond the logged scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from cmarr_lightning.analysis.evaluation import title_of
from cmarr_lightning.analysis.plots import plot_confusions
from cmarr_lightning.analysis.tables import confusion_table
from cmarr_lightning.callbacks.results import about_stage
from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = ["WandbDashboard"]

_PICTURES = 10
_SUMMARIES = {
    "val/uar_missing_mean": "max",
    "val/war_missing_mean": "max",
    "val/f1_missing_mean": "max",
    "val/uar/*": "max",
    "val/war/*": "max",
    "train/loss": "min",
    "train/flow_roundtrip_error": "max",
}


class WandbDashboard(Callback):
    """Complete what a `WandbLogger` records; with other loggers it does nothing.

    * Summaries of the runs' table: the maximum of the validation scores over the epochs (of a condition's score: its
      own maximum, not that of the selected epoch), the minimum of the training loss.
    * `val/uar_missing_mean_best`: the best score so far, as a metric of its own, which a sweep can optimise.
    * `val/confusion`: the confusion matrices of all conditions as a picture, at most ten over the training and after
      the last epoch; `val/confusion_table` after it and `test/confusion_table` after a test: condition, true,
      predicted, count. (W&B's own confusion chart cannot be stepped through the epochs.)
    * The best checkpoint as an artifact `model-<id>` with the alias `best`, unless W&B is offline: what is logged
      offline is staged outside the run's folder.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Define the summaries."""
        for logger in _loggers(trainer):
            for name, summary in _SUMMARIES.items():
                logger.experiment.define_metric(name, summary=summary, step_metric="trainer/global_step")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the best score and, now and then, the confusion matrices."""
        loggers = _loggers(trainer)
        if (
            not loggers
            or not isinstance(pl_module, EmotionTask)
            or trainer.state.fn != "fit"
            or trainer.sanity_checking
        ):
            return
        every = math.ceil((trainer.max_epochs or 1) / _PICTURES)
        last = trainer.current_epoch + 1 == trainer.max_epochs
        counts = pl_module.confusions()
        if not trainer.is_global_zero:
            return
        content: dict[str, Any] = {f"{EmotionTask.monitor}_best": _best(trainer)}
        if last or trainer.current_epoch % every == 0:
            content["val/confusion"], table = _confusion(trainer, pl_module, counts, "validate")
            if last:
                content["val/confusion_table"] = table
        _log(loggers, trainer, content)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the confusion counts of the test."""
        loggers = _loggers(trainer)
        if not loggers or not isinstance(pl_module, EmotionTask):
            return
        counts = pl_module.confusions()
        if trainer.is_global_zero:
            picture, table = _confusion(trainer, pl_module, counts, "test")
            _log(loggers, trainer, {"test/confusion": picture, "test/confusion_table": table})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Upload the best checkpoint."""
        import wandb

        best = _best_checkpoint(trainer)
        if not trainer.is_global_zero or best is None or not best.best_model_path:
            return
        for logger in _loggers(trainer):
            run = logger.experiment
            if not (run.offline or run.disabled):
                artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata={str(best.monitor): _best(trainer)})
                artifact.add_file(best.best_model_path, name="best.ckpt")
                run.log_artifact(artifact, aliases=["best"])


def _loggers(trainer: Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _log(loggers: Sequence[WandbLogger], trainer: Trainer, content: dict[str, Any]) -> None:
    for logger in loggers:  # a step of our own would clash with Lightning's; the x axis is a metric
        logger.experiment.log(content | {"trainer/global_step": trainer.global_step})


def _best_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    chosen = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    return next(chosen, None)


def _best(trainer: Trainer) -> float:
    """Get the best score so far, those before a resumption included."""
    kept = _best_checkpoint(trainer)
    scores = [trainer.callback_metrics.get(EmotionTask.monitor), kept.best_model_score if kept else None]
    return max((float(score) for score in scores if score is not None), default=math.nan)


def _confusion(trainer: Trainer, task: EmotionTask, counts: tuple[Tensor, Tensor], stage: str) -> tuple[Any, Any]:
    """Make a picture and a table; `available` is in them where it differs from the complete condition."""
    import wandb

    (confusion, available), names = (c.cpu() for c in counts), task.condition_names
    if available.sum() > confusion[-1].sum():
        confusion, names = torch.cat([confusion, available]), [*names, AVAILABLE]
    figure = plot_confusions(confusion.numpy(), names, task.class_names, title_of(about_stage(trainer, stage)))
    return wandb.Image(figure), wandb.Table(dataframe=confusion_table(confusion, names, task.class_names))
