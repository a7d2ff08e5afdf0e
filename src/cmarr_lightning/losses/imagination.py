"""Losses of networks that imagine what is missing: squared error to a teacher, divergence of a posterior."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from cmarr_lightning.losses.reconstruction import masked_mean

__all__ = ["KLScale", "gaussian_kl", "teacher_error"]

KLScale: TypeAlias = Literal["mean", "released"]


def teacher_error(imagined: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return the squared error per dimension, averaged over the embeddings whose target is known.

    Args:
        imagined: (B, K, M, E).
        target: (B, K, M, E); no gradient flows into it.
        known: (B, K, M) bool.
    """
    imagined = imagined.to(torch.promote_types(imagined.dtype, torch.float32))
    return masked_mean((imagined - target.detach()).square().mean(dim=-1), known)


def gaussian_kl(mean: Tensor, log_variance: Tensor, usable: Tensor, scale: KLScale = "mean") -> Tensor:
    r"""Return the divergence of :math:`N(\mu, \mathrm{diag}\,\sigma^2)` from the standard normal distribution.

    .. math:: -\tfrac{1}{2} (1 + \log\sigma^2 - \mu^2 - \sigma^2)

    Args:
        mean: (B, K, Z).
        log_variance: (B, K, Z), natural logarithm.
        usable: (B, K) bool, rows that count.
        scale: `mean` over rows and latent dimensions, which the squared error, itself a mean, can be added to.
            `released`: summed over both as in the released NMER, where it outweighs the rest B Z to 1 and the
            posterior collapses.

    Returns:
        Scalar >= 0, nats.
    """
    mean, log_variance = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (mean, log_variance))
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp())
    if scale == "released":
        return divergence.sum(dim=-1).masked_fill(~usable, 0.0).sum()
    return masked_mean(divergence.mean(dim=-1), usable)
