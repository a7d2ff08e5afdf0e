"""One step of CM-ARR on the share of a process; run as `worker.py STORE OUT` with RANK and WORLD_SIZE set.

What it measures is saved as OUT/<rank>.pt: per scenario the loss terms and the gradients that the optimiser gets.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cmarr_lightning import CMARRTask, FeatureDataModule
from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.dataset import UtteranceDataset
from cmarr_lightning.data.sampler import BatchRequest
from cmarr_lightning.losses.alignment import wasserstein_squared
from cmarr_lightning.outputs import LossTerms

BATCH = 24
"""Rows of the global batch."""


class FixedShares(FeatureDataModule):
    """One training batch: given rows, of which every process takes its part."""

    def __init__(self, store: str, rows: np.ndarray) -> None:
        super().__init__(store, verify_checksums=False)
        self.rows = rows

    def train_dataloader(self) -> DataLoader[MultimodalBatch]:
        share = np.array_split(self.rows, self.trainer.world_size)[self.trainer.global_rank]
        request = BatchRequest(rows=share, epoch=0, repeated=np.zeros(len(share), dtype=bool))
        data = UtteranceDataset(self.store, self.modalities, self.labels, draw="all", seed=0)
        return DataLoader(data, sampler=[request], batch_size=None)


class StillTask(CMARRTask):
    """Without dropout and sampling, all losses at their full weight from the first step; keeps what it computes."""

    gather_mode = "gradient"

    def train(self, mode: bool = True) -> StillTask:
        return super().train(False)

    def ramp(self) -> float:
        return 1.0

    def gather(self) -> Callable[[Tensor], Tensor]:
        return (lambda tensor: tensor) if self.gather_mode == "none" else super().gather()

    def _note(self, terms: LossTerms, loss: Tensor, *_: Any) -> None:
        self.terms = {**terms._asdict(), "loss": loss}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.gradients = {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in self.named_parameters()
        }


class AlignmentOnly(StillTask):
    """The contrastive loss by itself, which needs the rows of all processes as negatives."""

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        output = self.network(batch.features, batch.padding_mask, batch.observed.unsqueeze(1))
        if self.gather_mode == "local anchors":
            loss = self._local_anchors(output.mean, output.log_std.exp())
        else:
            output = output.map(self.gather())
            loss = self.loss.align(output.mean, output.log_std.exp(), output.present[:, 0])
        self.terms = {"align": loss}
        unused = sum(p.sum() for p in self.parameters())
        return loss + 0.0 * unused

    def _local_anchors(self, mean: Tensor, std: Tensor) -> Tensor:
        """Contrast the rows of this process with those of all, gathered without gradients."""
        means, stds = (self.all_gather(x).reshape(-1, *x.shape[1:]) for x in (mean, std))
        target = torch.arange(len(mean)) + self.global_rank * len(mean)
        losses = []
        for m, n in permutations(range(mean.shape[1]), 2):
            distance = wasserstein_squared(mean[:, m], std[:, m], means[:, n], stds[:, n])
            similarity = -distance / (2 * mean.shape[-1] * self.loss.align.temperature)
            losses.append(torch.nn.functional.cross_entropy(similarity, target))
        return torch.stack(losses).mean()


def step(store: str, rows: np.ndarray, cls: type[StillTask] = StillTask, mode: str = "gradient", **options: Any) -> Any:
    """Train one step on the rows; get the loss terms and the gradients."""
    torch.manual_seed(0)
    data = FixedShares(store, rows)
    task = cls(data.modalities, data.feature_dims, data.class_names, embed_dim=16, num_heads=2, **options)
    with torch.no_grad():  # away from the start, where the flows are the identity
        for parameter in task.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    task.eval()
    task.gather_mode = mode
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = pl.Trainer(
        max_steps=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        accelerator="cpu",
        strategy="auto" if processes == 1 else "ddp",
        devices=processes,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=data)
    terms = {name: value.detach() for name, value in task.terms.items()}
    return {"terms": terms, "gradients": task.gradients, "after": [p.detach() for p in task.parameters()]}


def measure(store: str) -> dict[str, Any]:
    """Run every scenario."""
    data = FeatureDataModule(store, verify_checksums=False)
    observed, rows = data.store.observed(), np.arange(len(data.store))
    random = np.random.default_rng(0)
    mixed = random.choice(rows, BATCH, replace=False)
    with_first, without_first = rows[observed[:, 0]], rows[~observed[:, 0]]
    half = BATCH // 2
    one_lacks = np.concatenate([with_first[:half], without_first[:half]])
    none_pair = np.concatenate([rows[observed.sum(axis=1) == 1][:half], rows[observed.all(axis=1)][:half]])
    results = {
        "mixed": step(store, mixed),
        "drawn": step(store, mixed, train_conditions="drawn"),
        "staged": step(store, mixed, schedule="staged"),
        "one rank lacks a modality": step(store, one_lacks),
        "one rank has no pair": step(store, none_pair),
    }
    complete = rows[observed.all(axis=1)][:BATCH]
    for mode in ("gradient", "local anchors", "none"):
        results[f"align {mode}"] = step(store, complete, AlignmentOnly, mode)
    return results


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    measured = measure(sys.argv[1])
    torch.save(measured, Path(sys.argv[2]) / f"{torch.distributed.get_rank()}.pt")
