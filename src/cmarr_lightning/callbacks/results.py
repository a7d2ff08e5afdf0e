"""The table and the confusion matrices of an evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from cmarr_lightning.analysis.evaluation import NOISE, prediction_table, title_of, write_evaluation, write_noisy
from cmarr_lightning.analysis.tables import print_noisy, print_scores
from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = ["ResultsWriter", "about_stage"]


class ResultsWriter(Callback):
    """Print and keep the scores of `test` and `validate`.

    Writes to `<run folder>/<stage>/`: `scores.csv` (condition, war, uar, f1 in [0, 1], n), `confusion.csv`
    (counts), `confusion.png` and `about.json` (what was scored: data, checksum, fold, synthetic or not). `test`
    also keeps what was predicted, row by row, so that two methods can be compared in pairs: `predictions.parquet`
    (utterance_id, session, speaker, condition, true, predicted, p_<class>) holds exactly the rows that the
    confusion counts count. Where the data have `test_noise`, `test/noise` holds scores and counts of every condition
    under every noise, `<condition>@<noise>`.

    During `fit` it does nothing: the validation scores are in the log. In several processes the counts are summed
    over all of them; the first one writes.
    """

    def __init__(self) -> None:
        self._predictions: list[pd.DataFrame] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the predictions of the run before."""
        self._predictions = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: MultimodalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tabulate the batch if it is clean. Without a data module rows have no names."""
        if (
            not dataloader_idx
            and isinstance(pl_module, EmotionTask)
            and getattr(trainer, "datamodule", None) is not None
        ):
            self._predictions.append(_tabulate(trainer, pl_module, batch, outputs))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test scores and predictions."""
        self._write(trainer, pl_module, "test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation scores of `validate`."""
        if trainer.state.fn == "validate":
            self._write(trainer, pl_module, "validate")

    def _write(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if not isinstance(task, EmotionTask):
            return
        counts, noisy = task.confusions(), task.noisy_confusions()
        parts = _gather(trainer, self._predictions) if stage == "test" else []
        if not trainer.is_global_zero:
            return
        confusion, available = (c.cpu() for c in counts)
        names = task.condition_names
        num_incomplete = len(names) - 1
        predictions = _in_order(parts) if parts else None
        if available.sum() > confusion[-1].sum():
            confusion, names = torch.cat([confusion, available]), [*names, AVAILABLE]
        elif predictions is not None:
            predictions = predictions[predictions["condition"] != AVAILABLE]
        folder = Path(trainer.default_root_dir) / stage
        about = about_stage(trainer, stage)
        scores = write_evaluation(
            folder,
            confusion,
            names,
            task.class_names,
            num_incomplete=num_incomplete,
            about=about,
            predictions=predictions,
        )
        console = Console()
        console.print(print_scores(scores, title_of(about)))
        if noisy:
            table = write_noisy(
                folder, {name: c.cpu() for name, c in noisy.items()}, task.condition_names, task.class_names
            )
            console.print(print_noisy(table, task.condition_names[-1]))
        elif stage == "test":  # a test replaces the one before, noise included
            shutil.rmtree(folder / NOISE, ignore_errors=True)
        console.print(f"Scores and confusion matrices: {folder}", soft_wrap=True)


def _tabulate(trainer: Trainer, task: EmotionTask, batch: MultimodalBatch, output: dict[str, Tensor]) -> pd.DataFrame:
    """Tabulate the scored rows of a batch: complete utterances under every condition, all of them as they are."""
    labels, probabilities = batch.labels.cpu(), output["probabilities"].cpu()
    scored = (labels >= 0) & ~output["repeated"].cpu()
    complete = scored & output["observed"].all(dim=1).cpu()
    everything = probabilities.shape[1] - 1
    usable = torch.cat([complete[:, None].expand(-1, everything + 1), scored[:, None]], dim=1)
    row, order = usable.nonzero(as_tuple=True)
    chosen = probabilities[row, order.clamp(max=everything)]
    utterances = trainer.datamodule.manifest_rows(batch.rows.cpu().numpy())  # type: ignore[attr-defined]
    names = [*task.condition_names, AVAILABLE]
    table = prediction_table(
        utterances.iloc[row.numpy()],
        [names[k] for k in order.tolist()],
        task.class_names,
        labels[row].tolist(),
        chosen.argmax(dim=-1).tolist(),
        chosen,
    )
    return table.assign(row=batch.rows.cpu()[row].numpy(), order=order.numpy())


def _gather(trainer: Trainer, parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Join the tables of all processes."""
    if trainer.world_size == 1:
        return parts
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, parts)
    return [table for tables in gathered for table in tables]


def _in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True).sort_values(["row", "order"], ignore_index=True)
    return table.drop(columns=["row", "order"])


def about_stage(trainer: Trainer, stage: str) -> dict[str, Any]:
    """Tell what is scored: stage, checkpoint, data, data_checksum, synthetic, protocol, fold."""
    data = getattr(trainer, "datamodule", None)
    about: dict[str, Any] = {
        "stage": stage,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
    }
    if data is not None:
        about |= {
            "data": data.store.name,
            "data_checksum": data.data_checksum,
            "synthetic": data.synthetic,
            "protocol": data.protocol,
            "fold": data.fold,
        }
    return about
