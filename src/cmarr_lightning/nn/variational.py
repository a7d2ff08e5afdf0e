"""The conditional variational auto-encoder of NMER."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ConditionalVAE", "VAEOutput"]


class VAEOutput(NamedTuple):
    """What the auto-encoder returns.

    Attributes:
        recovered: (B, K, D), in (0, 1).
        mean: (B, K, Z) of the posterior.
        log_variance: (B, K, Z), natural logarithm.
    """

    recovered: Tensor
    mean: Tensor
    log_variance: Tensor


class ConditionalVAE(nn.Module):
    r"""Recover the clean vector from a corrupted one under a condition vector.

    .. math::
        e &= \mathrm{Transformer}([p; q]), \qquad \mu = W_\mu e, \qquad \log\sigma^2 = W_\sigma e \\
        z &= \mu + \sigma \epsilon \;\text{(the mean in evaluation)}, \qquad
        \hat x = \mathrm{sigmoid}(\mathrm{Dec}([z; q]))

    Args:
        dim: D, width of p and of what is recovered.
        condition_dim: Width of q.
        hidden_dim: Width of the feed-forward layers and of the decoder's hidden layer.
        latent_dim: Z.
        num_layers: Of the transformer.
        num_heads: Attention heads; dim + condition_dim is divisible by it.
        batch_attention: Whether the B utterances of a batch attend to each other.

    Note:
        Two departures from the released program, whose transformer is given a B x (D + D) matrix and so reads the
        batch as one sequence. By default each utterance is a sequence of its own here, because a prediction must not
        depend on batch mates; `batch_attention` restores it. In evaluation z is the mean, not a sample, so that a
        prediction can be repeated. `released_output` is a linear map that the released class holds and never calls;
        it is kept for the published number of parameters, and gets no gradient.

    Examples:
        >>> vae = ConditionalVAE(8, 8, hidden_dim=4, latent_dim=2, num_layers=1, num_heads=2).eval()
        >>> vae(torch.zeros(3, 7, 8), torch.zeros(3, 7, 8)).recovered.shape
        torch.Size([3, 7, 8])
    """

    def __init__(
        self,
        dim: int,
        condition_dim: int,
        hidden_dim: int = 128,
        latent_dim: int = 64,
        num_layers: int = 5,
        num_heads: int = 8,
        batch_attention: bool = False,
    ) -> None:
        super().__init__()
        width = dim + condition_dim
        self.batch_attention = batch_attention
        layer = nn.TransformerEncoderLayer(width, num_heads, dim_feedforward=hidden_dim, dropout=0.1)
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.to_mean = nn.Linear(width, latent_dim)
        self.to_log_variance = nn.Linear(width, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim + condition_dim, hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(hidden_dim, dim),
            nn.Sigmoid(),
        )
        self.released_output = nn.Linear(latent_dim + condition_dim, dim)

    def forward(self, corrupted: Tensor, condition: Tensor) -> VAEOutput:
        """Recover from p (B, K, D) under q (B, K, condition_dim), for K conditions that never meet."""
        joint = torch.cat([corrupted, condition], dim=-1)
        if self.batch_attention:  # K sequences of length B; sequence first
            encoded = self.transformer(joint)
        else:  # B K sequences of length 1
            encoded = self.transformer(joint.flatten(0, 1).unsqueeze(0)).view_as(joint)
        mean, log_variance = self.to_mean(encoded), self.to_log_variance(encoded)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.training else mean
        return VAEOutput(self.decoder(torch.cat([z, condition], dim=-1)), mean, log_variance)
