r"""WAR, UAR and macro F1, one set per condition, over the whole evaluation set.

Definitions, from the confusion counts :math:`n_{ij}` (true class i, predicted class j):

* WAR (weighted average recall = accuracy, "WA") :math:`= \sum_i n_{ii} / \sum_{ij} n_{ij}`
* UAR (unweighted average recall = macro recall, "UA") :math:`= \mathrm{mean}_i\; n_{ii} / \sum_j n_{ij}`
  over the classes that occur among the true labels. A class that does not occur has no recall and is left
  out, predicted or not (scikit-learn's balanced accuracy does the same; torchmetrics counts it as 0 once it
  is predicted).
* macro F1 :math:`= \mathrm{mean}_i\; 2 n_{ii} / (\sum_j n_{ij} + \sum_j n_{ji})` over the classes that
  occur among the true labels or the predictions (scikit-learn's default).

All are NaN for an empty set.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from cmarr_lightning.modalities import Condition, condition_name

__all__ = ["ConditionMetrics", "macro_f1", "unweighted_average_recall", "weighted_average_recall"]


def weighted_average_recall(confusion: Tensor) -> Tensor:
    """Return WAR in [0, 1] of confusion counts (..., C, C), rows = true classes."""
    counts = _exact(confusion)
    return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))


def unweighted_average_recall(confusion: Tensor) -> Tensor:
    """Return UAR in [0, 1] of confusion counts (..., C, C), rows = true classes."""
    counts = _exact(confusion)
    return (counts.diagonal(dim1=-2, dim2=-1) / counts.sum(-1)).nanmean(-1)


def macro_f1(confusion: Tensor) -> Tensor:
    """Return macro F1 in [0, 1] of confusion counts (..., C, C), rows = true classes."""
    counts = _exact(confusion)
    hits = counts.diagonal(dim1=-2, dim2=-1)
    return (2 * hits / (counts.sum(-1) + counts.sum(-2))).nanmean(-1)


def _exact(confusion: Tensor) -> Tensor:
    """Leave the device: not every accelerator has float64, and the counts are few."""
    return confusion.cpu().double()


class ConditionMetrics(Metric):
    """Count confusions per condition and derive WAR, UAR and macro F1.

    Args:
        conditions: K conditions; the last one is the complete one.
        num_classes: C.

    Examples:
        >>> metrics = ConditionMetrics([("audio",), ("audio", "text")], num_classes=2)
        >>> logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]])
        >>> metrics.update(logits, torch.tensor([0, 1]))
        >>> {name: round(value.item(), 2) for name, value in metrics.compute().items() if "uar" in name}
        {'uar/audio': 0.5, 'uar/audio+text': 1.0, 'uar_missing_mean': 0.5}
    """

    full_state_update = False
    confusion: Tensor
    broken: Tensor
    """How many counted rows had logits that are not finite, which no class can be read from."""

    def __init__(self, conditions: Sequence[Condition], num_classes: int) -> None:
        super().__init__()
        self.names = [condition_name(condition) for condition in conditions]
        self.num_classes = num_classes
        shape = (len(conditions), num_classes, num_classes)
        self.add_state("broken", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("confusion", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count rows: logits (B, K, C), labels (B,) int64; rows with label -1 are not counted."""
        logits, labels = logits[labels >= 0], labels[labels >= 0]
        self.broken += (~logits.isfinite()).any((1, 2)).sum()
        predicted = logits.argmax(dim=-1)  # (B, K)
        condition = torch.arange(len(self.names), device=labels.device)
        cell = (condition * self.num_classes + labels.unsqueeze(1)) * self.num_classes + predicted
        self.confusion += cell.flatten().bincount(minlength=self.confusion.numel()).view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Score what was counted.

        Returns:
            float64 scalars in [0, 1]: `war/<condition>`, `uar/...`, `f1/...` and, where there is an
            incomplete condition, their means over those, `war_missing_mean`, ...
        """
        values: dict[str, Tensor] = {}
        for key, score in (
            ("war", weighted_average_recall),
            ("uar", unweighted_average_recall),
            ("f1", macro_f1),
        ):
            scores = score(self.confusion)
            values |= {f"{key}/{name}": scores[k] for k, name in enumerate(self.names)}
            if len(self.names) > 1:
                values[f"{key}_missing_mean"] = scores[:-1].mean()
        return values
