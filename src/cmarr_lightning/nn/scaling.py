"""Standardisation of the input features with the training fold's statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FeatureScaler"]


class FeatureScaler(nn.Module):
    r"""Clip and standardise the columns of one modality.

    .. math:: x' = (\mathrm{clamp}(x, low, high) - mean) / std, \qquad \mathrm{NaN} \to 0

    so that a single missing value becomes the training mean. The statistics are buffers: they travel in the
    checkpoint and need no training data at prediction. Until `fit` they change nothing.

    Args:
        dim: D.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("low", torch.full((dim,), -torch.inf))
        self.register_buffer("high", torch.full((dim,), torch.inf))

    def fit(self, mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> None:
        """Take over the statistics, each (D,), in the features' unit; std > 0."""
        for name, value in (("mean", mean), ("std", std), ("low", low), ("high", high)):
            getattr(self, name).copy_(value)

    def forward(self, features: Tensor) -> Tensor:
        """Scale features (..., D)."""
        clipped = torch.clamp(features, self.low, self.high)  # a new tensor, so the rest may work in place
        scaled = clipped.sub_(self.mean).div_(self.std)
        return scaled.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
