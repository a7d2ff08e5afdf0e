"""Per-modality encoders: scaled feature frames to embedded tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureEncoder", "FrameSharedDropout", "sinusoidal_positions"]


def sinusoidal_positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Return the (T, E) sine and cosine position code of the transformer, less that of the first frame; dim even.

    The first frame's code is 0, so that an utterance vector (T = 1), which has no order, is the same alone and
    padded.

    Examples:
        >>> sinusoidal_positions(2, 4).round(decimals=2)
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000],
                [ 0.8400, -0.4600,  0.0100, -0.0000]])
    """
    position = torch.arange(length, dtype=torch.float32, device=device).unsqueeze(1)
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-math.log(10_000.0) / dim))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate) - 1], dim=-1).flatten(1)


class FrameSharedDropout(nn.Dropout):
    """Drop whole columns of an utterance: one mask (B, 1, D) for all its frames (B, T, D).

    Neighbouring frames say nearly the same, so that dropping single values hides little; and random numbers are
    the most expensive part of a dropout on frames.

    Args:
        p: Probability of a column to be dropped.
    """

    def forward(self, frames: Tensor) -> Tensor:
        """Drop columns of frames (B, T, D) in training."""
        if not self.training or self.p == 0:
            return frames
        return frames * F.dropout(torch.ones_like(frames[:, :1]), self.p)


class FeatureEncoder(nn.Module):
    r"""Embed frames one by one.

    .. math::
        H = \mathrm{LN}(x W) + \mathrm{PE} \qquad\text{or, with a hidden layer,}\qquad
        H = \mathrm{GELU}(\mathrm{LN}(x W_1)) W_2 + \mathrm{PE}

    with biases; PE is the position code, 0 for an utterance vector (T = 1), which has no order. A hidden layer
    pays on utterance vectors; on frames it multiplies the cost of the whole network.

    Args:
        feature_dim: D.
        embed_dim: E.
        hidden_dim: Width of the hidden layer; None leaves it out.
        dropout: Before the last linear map, or of H if there is no hidden layer; shared by the frames.
        input_dropout: Of the scaled features, shared by the frames.
    """

    def __init__(
        self,
        feature_dim: int,
        embed_dim: int,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_dim is None:
            layers = [nn.Linear(feature_dim, embed_dim), nn.LayerNorm(embed_dim), FrameSharedDropout(dropout)]
        else:
            layers = [
                nn.Linear(feature_dim, hidden_dim),
                nn.LayerNorm(hidden_dim),
                nn.GELU(),
                FrameSharedDropout(dropout),
                nn.Linear(hidden_dim, embed_dim),
            ]
        self.layers = nn.Sequential(FrameSharedDropout(input_dropout), *layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features (B, T, D) as tokens (B, T, E)."""
        tokens: Tensor = self.layers(features)
        if features.shape[1] == 1:
            return tokens
        positions = sinusoidal_positions(features.shape[1], tokens.shape[-1], tokens.device)
        return tokens + positions.to(tokens.dtype)
