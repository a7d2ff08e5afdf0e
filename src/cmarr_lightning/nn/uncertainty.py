"""The uncertainty modelling component (UMC): frames to one Gaussian per utterance."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Gaussian", "UncertaintyModelingComponent"]


class Gaussian(NamedTuple):
    r"""Diagonal Gaussians :math:`N(\mu, \mathrm{diag}(\sigma^2))`.

    Attributes:
        mean: (..., E).
        log_std: (..., E), natural logarithm of the standard deviation.
    """

    mean: Tensor
    log_std: Tensor

    def sample(self) -> Tensor:
        r"""Draw :math:`\mu + \sigma \epsilon`, differentiable in both parameters; (..., E)."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)


class UncertaintyModelingComponent(nn.Module):
    r"""Pool the frames of one modality into a Gaussian by multi-head attention with two branches.

    .. math::
        U &= \mathrm{LN}(\mathrm{GELU}(H W_u)) \\
        O &= \mathrm{MHA}(q, U, U) \quad\text{(heads concatenated; first half } O_\mu
             \text{, second half } O_\sigma\text{)} \\
        m &= \bar H + O_\mu W_\mu, & \mu &= \mathrm{LN}(m + \mathrm{MLP}_\mu(\mathrm{LN}(m))) \\
        l &= O_\sigma W_\sigma,    & \log\sigma &= \mathrm{clamp}(l + \mathrm{MLP}_\sigma(\mathrm{LN}(l)), -3, 1)

    with :math:`\bar H` the mean over the frames that are not padding and q one learned query per head. The last
    LN has no gain and bias, so that the scale of the 2-Wasserstein distance is fixed.

    Args:
        embed_dim: E, divisible by 2 * num_heads.
        num_heads: Attention heads; the first half serves the mean, the second half the standard deviation.
        mlp_ratio: Hidden width of both MLPs in units of E.
        dropout: In the hidden layer of both MLPs.
        initial_std: sigma at the start.
        log_std_range: Bounds of :math:`\log\sigma`.

    Note:
        The paper names the parts (multi-head attention, GELU, LN, feed-forward, mean and variance; Fig. 3). We
        follow the distribution encoder of MAP (Ji et al., CVPR 2023), except that frames are pooled *inside* the
        attention, by one query per head, instead of after token-level self-attention and MLPs. The keys' and
        values' projections then act on H pooled vectors instead of T frames (a product of linear maps is
        associative), and the MLPs on one vector instead of T: about a tenth of the arithmetic.

    Examples:
        >>> umc = UncertaintyModelingComponent(16, num_heads=2)
        >>> gaussian = umc(torch.randn(4, 7, 16), torch.zeros(4, 7, dtype=torch.bool))
        >>> gaussian.mean.shape, gaussian.log_std.shape
        (torch.Size([4, 16]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        initial_std: float = 0.3,
        log_std_range: tuple[float, float] = (-3.0, 1.0),
    ) -> None:
        super().__init__()
        if embed_dim % (2 * num_heads):
            raise ValueError(f"embed_dim {embed_dim} is not divisible by 2 * num_heads = {2 * num_heads}")
        self.num_heads = num_heads
        self.log_std_range = log_std_range
        self.input = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.query = nn.Parameter(torch.empty(num_heads, embed_dim))
        self.value = nn.Parameter(torch.empty(num_heads, embed_dim, embed_dim // num_heads))
        self.to_mean = nn.Linear(embed_dim // 2, embed_dim)
        self.to_log_std = nn.Linear(embed_dim // 2, embed_dim)
        self.mlp_mean = _mlp(embed_dim, mlp_ratio, dropout)
        self.mlp_log_std = _mlp(embed_dim, mlp_ratio, dropout)
        self.apply(_initialise)
        nn.init.constant_(self.to_log_std.bias, math.log(initial_std))
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.value, std=embed_dim**-0.5)

    def forward(self, tokens: Tensor, padding_mask: Tensor) -> Gaussian:
        """Pool tokens (B, T, E) with padding_mask (B, T, True = padding) into a Gaussian of (B, E)."""
        kept = (~padding_mask).to(tokens.dtype)
        uniform = kept / kept.sum(dim=1, keepdim=True)
        hidden = self.norm(F.gelu(self.input(tokens)))
        # Contiguous in T: a softmax along the last dimension and the product after it run several times faster.
        scores = F.linear(hidden, self.query * self.query.shape[1] ** -0.5).transpose(1, 2).contiguous()
        attention = scores.masked_fill(padding_mask.unsqueeze(1), float("-inf")).softmax(dim=-1)
        pooled = torch.bmm(attention.to(hidden.dtype), hidden)  # (B, heads, E)
        heads = torch.einsum("bhe,hev->bhv", pooled, self.value).flatten(1)
        for_mean, for_log_std = heads.chunk(2, dim=-1)
        mean = torch.einsum("bt,bte->be", uniform, tokens) + self.to_mean(for_mean)
        log_std = self.to_log_std(for_log_std)
        mean = mean + self.mlp_mean(mean)
        log_std = log_std + self.mlp_log_std(log_std)
        return Gaussian(
            F.layer_norm(_at_least_float32(mean), mean.shape[-1:]),
            _at_least_float32(log_std).clamp(*self.log_std_range),
        )


def _at_least_float32(x: Tensor) -> Tensor:
    """Leave autocast: distances between Gaussians and flows need more than the 8 bits of bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _mlp(embed_dim: int, ratio: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(embed_dim),
        nn.Linear(embed_dim, ratio * embed_dim),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(ratio * embed_dim, embed_dim),
    )


def _initialise(module: nn.Module) -> None:
    """Start near one std but not at it: with all std equal, the gradient of W2 in them is exactly zero."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
