"""Refinement: supervised contrastive learning on points of all modalities, true and recovered."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["supervised_contrastive"]


def supervised_contrastive(points: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Pull points of one class together and push the others away, whatever their modality.

    .. math::
        L = \operatorname*{mean}_{i : P(i) \neq \emptyset} \; \frac{-1}{|P(i)|} \sum_{j \in P(i)}
            \left[ q_i^\top q_j / \tau - \log \sum_{k \neq i} \exp(q_i^\top q_k / \tau) \right],
        \quad P(i) = \{ j \neq i : y_j = y_i \}

    Args:
        points: (N, E), of unit length.
        labels: (N,) int64; points with label -1 are left out.
        temperature: tau.

    Returns:
        Scalar, nats; 0 where no class occurs twice.

    References:
        Khosla et al., "Supervised Contrastive Learning", 2020, https://arxiv.org/abs/2004.11362, Eq. 2.
    """
    with torch.autocast(points.device.type, enabled=False):
        points, labels = points[labels >= 0], labels[labels >= 0]
        points = points.to(torch.promote_types(points.dtype, torch.float32))
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        logits = (points @ points.T / temperature).masked_fill(itself, float("-inf"))
        log_softmax = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
        positive = (labels.unsqueeze(0) == labels.unsqueeze(1)) & ~itself
        count = positive.sum(dim=1)
        per_point = -(log_softmax * positive).sum(dim=1) / count.clamp_min(1)
        return per_point.sum() / (count > 0).sum().clamp_min(1)
