"""Cross-entropy over the conditions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cmarr_lightning.losses.reconstruction import masked_mean

__all__ = ["condition_cross_entropy"]


def condition_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    usable: Tensor,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Average the cross-entropy over the usable conditions of labelled rows.

    Args:
        logits: (B, K, C).
        labels: (B,) int64, -1 = none.
        usable: (B, K) bool, True = something is present.
        class_weight: (C,), factor on the cross-entropy of each class.
        label_smoothing: In [0, 1).

    Returns:
        Scalar, nats.
    """
    loss = F.cross_entropy(
        logits.float().transpose(1, 2),
        labels.clamp_min(0).unsqueeze(1).expand(-1, logits.shape[1]),
        weight=class_weight,
        label_smoothing=label_smoothing,
        reduction="none",
    )  # (B, K)
    return masked_mean(loss, usable & (labels >= 0).unsqueeze(1))
