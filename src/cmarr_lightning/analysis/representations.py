"""True and reconstructed representations of utterances, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from matplotlib.figure import Figure

from cmarr_lightning.analysis.style import grid, look_of
from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.dataset import UtteranceDataset, padding_costs
from cmarr_lightning.data.sampler import BatchRequest
from cmarr_lightning.errors import InputError, not_installed
from cmarr_lightning.modalities import Condition, condition_name, condition_table, incomplete_conditions
from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.cmarr import CMARRTask

__all__ = ["Representations", "choose_rows", "collect", "plot_representations", "project"]


@dataclass(frozen=True)
class Representations:
    """Points that the classifier sees of N utterances with all modalities.

    Attributes:
        modalities: M names.
        conditions: K incomplete conditions.
        class_names: C names.
        labels: (N,) int64 class index.
        real: (N, M, E) float32, from the modalities themselves.
        points: (N, K, M, E) float32: under each condition, `real` where present, reconstructed elsewhere.
    """

    modalities: list[str]
    conditions: list[Condition]
    class_names: list[str]
    labels: np.ndarray
    real: np.ndarray
    points: np.ndarray

    def recovered(self, condition: Condition, modality: str) -> np.ndarray:
        """Get (N, E): a modality reconstructed from those of a condition.

        Raises:
            InputError: The modality is present, or the condition was not collected.
        """
        if condition not in self.conditions or modality in condition:
            raise InputError(
                f"{modality} is not reconstructed under {condition_name(condition)}",
                remedy=f"use one of {', '.join(condition_name(c) for c in self.conditions if modality not in c)}",
            )
        points: np.ndarray = self.points[:, self.conditions.index(condition), self.modalities.index(modality)]
        return points


def choose_rows(data: FeatureDataModule, rows: np.ndarray, most: int) -> np.ndarray:
    """Take the utterances with all modalities, and of many of them `most`, spread evenly over the rows."""
    complete = np.all([data.store.lengths(m)[rows] > 0 for m in data.modalities], axis=0)
    rows = rows[complete]
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


@torch.inference_mode()
def collect(
    task: EmotionTask, data: FeatureDataModule, rows: np.ndarray, conditions: Sequence[Condition] | None = None
) -> Representations:
    """Run a trained network over utterances.

    Args:
        task: A `CMARRTask` in evaluation mode.
        data: Where the utterances are.
        rows: (N,) rows of the store; all modalities are on disk.
        conditions: Which incomplete conditions; all of them by default.

    Raises:
        InputError: The method reconstructs nothing.
    """
    if not isinstance(task, CMARRTask):
        raise InputError(f"{type(task).__name__} reconstructs no representations")
    conditions = list(incomplete_conditions(task.modalities) if conditions is None else conditions)
    table = condition_table(task.modalities, conditions)
    labels, real, points = [], [], []
    for batch in _batches(data, rows):
        output = task.network(batch.features, batch.padding_mask, table.expand(len(batch), -1, -1))
        labels.append(batch.labels)
        real.append(output.embeddings)
        points.append(output.points)
    return Representations(
        task.modalities,
        conditions,
        task.class_names,
        *(torch.cat(parts).numpy() for parts in (labels, real, points)),
    )


def project(vectors: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Lay vectors (N, E) out in a plane by t-SNE: (N, 2).

    Neighbours stay neighbours; distances between groups, their sizes and the axes mean nothing.

    Raises:
        InputError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise not_installed("scikit-learn", "notebooks")
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(vectors) - 1) / 3))
    plane: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    return plane


def plot_representations(
    representations: Representations, condition: Condition, *, most: int = 400, seed: int = 0
) -> Figure:
    """Draw, for each modality that is missing, true and reconstructed points in one plane (`project`).

    Args:
        representations: From `collect`.
        condition: What is present.
        most: Utterances drawn, spread evenly over all.
        seed: Of the projection.
    """
    missing = [m for m in representations.modalities if m not in condition]
    chosen = np.unique(np.linspace(0, len(representations.labels) - 1, most).astype(np.int64))
    labels = representations.labels[chosen]
    figure, axes = grid(len(missing), 5, 4.6, columns=2)
    for axis, modality in zip(axes, missing, strict=True):
        real = representations.real[chosen, representations.modalities.index(modality)]
        plane = project(np.concatenate([real, representations.recovered(condition, modality)[chosen]]), seed=seed)
        for c, (name, look) in enumerate(look_of(representations.class_names).items()):
            for kind, part, face in (
                ("true", plane[: len(real)], "none"),
                ("recovered", plane[len(real) :], look.color),
            ):
                x, y = part[labels == c].T
                label = f"{name}, {kind}" if axis is axes[0] else None
                axis.scatter(
                    x, y, s=16, marker=look.marker, facecolors=face, edgecolors=look.color, lw=0.7, label=label
                )
        axis.set_title(f"{modality}, recovered from {condition_name(condition)}", fontsize=10)
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel("t-SNE 1", fontsize=8)
        axis.set_ylabel("t-SNE 2", fontsize=8)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _batches(data: FeatureDataModule, rows: np.ndarray) -> Iterator[MultimodalBatch]:
    """Yield the rows in batches of similar length."""
    dataset = UtteranceDataset(data.store, data.modalities, data.labels)
    rows = rows[np.argsort(padding_costs(data.store, data.modalities)[rows], kind="stable")]
    for first in range(0, len(rows), data.eval_batch_size):
        part = rows[first : first + data.eval_batch_size]
        yield dataset[BatchRequest(part, 0, np.zeros(len(part), dtype=bool))]
