"""Reconstruction: likelihood of the flows and error of the recovered embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masked_mean", "negative_log_likelihood", "reconstruction_error"]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average values over the True places of a mask of the same shape; 0 (with a gradient) if there are none.

    The other places are never read: they may hold NaN.
    """
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)


def negative_log_likelihood(log_prob: Tensor, embed_dim: int, observed: Tensor) -> Tensor:
    r"""Return the mean over observed modalities of :math:`-\log p_m(u) / E`.

    Args:
        log_prob: (B, M), nats.
        embed_dim: E.
        observed: (B, M) bool.

    Returns:
        Scalar, nats per dimension, not clipped (a density may exceed 1).
    """
    return masked_mean(-log_prob / embed_dim, observed)


def reconstruction_error(recovered: Tensor, target: Tensor, recovered_mask: Tensor) -> Tensor:
    r"""Return :math:`\lVert \hat u_{m|A} - \mathrm{sg}(u_m) \rVert^2 / E`, averaged over what was recovered.

    Args:
        recovered: (B, K, M, E).
        target: (B, M, E); no gradient flows into it (a constant embedding would be optimal).
        recovered_mask: (B, K, M) bool, True where the modality is hidden by the condition and its truth is
            known.

    Returns:
        Scalar, mean squared error per dimension.
    """
    recovered = recovered.to(torch.promote_types(recovered.dtype, torch.float32))
    error = (recovered - target.detach().unsqueeze(1)).square().mean(dim=-1)
    return masked_mean(error, recovered_mask)
