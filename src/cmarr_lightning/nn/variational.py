"""The conditional variational auto-encoder of NMER."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionalVAE", "VAEOutput", "encode_singles"]


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


def encode_singles(transformer: nn.TransformerEncoder, x: Tensor) -> Tensor:
    r"""Run a post-norm transformer on sequences of length 1.

    A vector can attend to itself only, with the weight softmax(qk) = 1: of the attention :math:`W_o W_v x` is left, and
    queries and keys, two thirds of its input projection, need not be computed. Dropout still hits the weight of a head.

    Args:
        transformer: With an input projection shared by queries, keys and values.
        x: (..., D).
    """
    for module in transformer.layers:
        layer = cast(nn.TransformerEncoderLayer, module)
        attention = layer.self_attn
        weight, bias = (cast(Tensor, part).chunk(3)[2] for part in (attention.in_proj_weight, attention.in_proj_bias))
        value = F.linear(x, weight, bias).view(*x.shape[:-1], attention.num_heads, -1)
        weight_of_head = F.dropout(torch.ones_like(value[..., :1]), attention.dropout, layer.training)
        x = layer.norm1(x + layer.dropout1(attention.out_proj((weight_of_head * value).flatten(-2))))
        hidden = layer.dropout(layer.activation(layer.linear1(x)))
        x = layer.norm2(x + layer.dropout2(layer.linear2(hidden)))
    return x


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
        # K sequences of length B, or B K sequences of length 1.
        encoded = self.transformer(joint) if self.batch_attention else encode_singles(self.transformer, joint)
        mean, log_variance = self.to_mean(encoded), self.to_log_variance(encoded)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.training else mean
        return VAEOutput(self.decoder(torch.cat([z, condition], dim=-1)), mean, log_variance)
