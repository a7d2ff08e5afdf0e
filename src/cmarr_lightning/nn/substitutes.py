"""What takes the place of the normalizing flows when their use is measured: zeros, the mean, a regression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MeanSubstitute", "RegressionSubstitute", "ZeroSubstitute"]


class MeanSubstitute(nn.Module):
    r"""Take the embeddings themselves for latents: a missing modality becomes the mean of those that are present.

    .. math:: \hat u_{m|A} = \frac{1}{|A|} \sum_{n \in A} u_n

    It has the interface of `LatentFlow` and is what a flow is at its start, the identity. Its likelihood is that of
    a standard normal, which nothing can change.
    """

    def to_latent(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, E) as they are and log|det| = 0 (B,)."""
        return embeddings, torch.zeros_like(embeddings[:, 0])

    def from_latent(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embedding (B, E) put in for a missing modality, and zeros (B,)."""
        return latents, torch.zeros_like(latents[:, 0])


class ZeroSubstitute(MeanSubstitute):
    r"""Put zeros in for a missing modality: :math:`\hat u_{m|A} = 0`."""

    def from_latent(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros (B, E), whatever the latents (B, E), and zeros (B,)."""
        return torch.zeros_like(latents), torch.zeros_like(latents[:, 0])


class RegressionSubstitute(MeanSubstitute):
    r"""Predict a missing modality from the mean of those that are present, one network per missing modality.

    .. math:: \hat u_{m|A} = W_2\, \mathrm{GELU}(W_1 \bar u_A), \qquad \bar u_A = \frac{1}{|A|} \sum_{n \in A} u_n

    with biases. Trained by the reconstruction error; about as many parameters as a flow of three steps.

    Args:
        embed_dim: E.
        hidden_dim: Width of the hidden layer; 4 E by default.
    """

    def __init__(self, embed_dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or 4 * embed_dim
        self.layers = nn.Sequential(nn.Linear(embed_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, embed_dim))

    def from_latent(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions (B, E) from the mean embeddings (B, E), and zeros (B,)."""
        return self.layers(latents), torch.zeros_like(latents[:, 0])
