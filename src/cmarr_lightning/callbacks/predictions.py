"""One row per utterance and condition: the predictions of `cmarr predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.modalities import condition_name
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["PredictionWriter"]


class PredictionWriter(BasePredictionWriter):
    """Write utterance_id, condition, one probability per class (`p_<class>`) and the predicted class.

    Args:
        conditions: `available` scores each utterance with the modalities it has on disk; `all` under every
            condition that its modalities allow.
        file: Name of the file in the run folder; its ending, .parquet or .csv, is the format.
    """

    def __init__(
        self, conditions: Literal["available", "all"] = "available", file: str = "predictions.parquet"
    ) -> None:
        super().__init__(write_interval="epoch")
        if Path(file).suffix not in {".parquet", ".csv"}:
            raise InputError(f"predictions.file={file!r}: unknown format", remedy="end it with .parquet or .csv")
        self.conditions = conditions
        self.file = file

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to replace predictions of other utterances, before any are made."""
        super().setup(trainer, pl_module, stage)
        target = Path(trainer.default_root_dir) / self.file
        if stage != "predict" or not target.exists() or not isinstance(pl_module, EmotionTask):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if _utterances(target) != set(data.utterance_ids(data.predict_rows)):
            raise InputError(
                f"{target}: holds predictions of other utterances than those of {data.store.path}",
                remedy="give the new ones a name with --predictions.file, or delete the old ones",
            )

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the table; the first process writes the rows of all."""
        if not isinstance(pl_module, EmotionTask):
            return
        table = self._table(trainer, pl_module, predictions)
        parts: list[Any] = [table]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, table)
        if not trainer.is_global_zero:
            return
        table = pd.concat(parts, ignore_index=True).sort_values(["row", "order"]).drop(columns=["row", "order"])
        target = Path(trainer.default_root_dir) / self.file
        with replacing(target) as path:
            if target.suffix == ".csv":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path, index=False)
        print(f"Predictions of {table['utterance_id'].nunique():,} utterances: {target}")

    def _table(self, trainer: Trainer, task: EmotionTask, predictions: Sequence[dict[str, Tensor]]) -> pd.DataFrame:
        joined = {key: torch.cat([part[key].cpu() for part in predictions]) for key in predictions[0]}
        kept = ~joined["repeated"]
        rows, probabilities = joined["rows"][kept], joined["probabilities"][kept]
        observed, usable = joined["observed"][kept], joined["usable"][kept]
        if self.conditions == "available":
            row, order = torch.arange(len(rows)), torch.full((len(rows),), probabilities.shape[1] - 1)
            names = [condition_name([m for m, o in zip(task.modalities, has, strict=True) if o]) for has in observed]
        else:
            row, order = usable.nonzero(as_tuple=True)
            names = [task.condition_names[k] for k in order.tolist()]
        chosen = probabilities[row, order]
        ids = trainer.datamodule.utterance_ids(rows.numpy())  # type: ignore[attr-defined]
        table = pd.DataFrame(
            {
                "row": rows[row].numpy(),
                "order": order.numpy(),
                "utterance_id": [ids[i] for i in row.tolist()],
                "condition": names,
            }
        )
        for c, name in enumerate(task.class_names):
            table[f"p_{name}"] = chosen[:, c].numpy()
        table["predicted"] = [task.class_names[c] for c in chosen.argmax(dim=-1).tolist()]
        return table


def _utterances(table: Path) -> set[str]:
    column = ["utterance_id"]
    try:
        if table.suffix == ".csv":
            return set(pd.read_csv(table, usecols=column, dtype=str)["utterance_id"])
        return set(pd.read_parquet(table, columns=column)["utterance_id"])
    except (OSError, ValueError) as error:
        raise InputError(
            f"{table}: no table of predictions ({error})", remedy="name another --predictions.file"
        ) from error
