"""Alignment: distribution-based contrastive learning with the 2-Wasserstein distance."""

from __future__ import annotations

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AlignmentLoss", "wasserstein_info_nce", "wasserstein_squared"]

_LOG_TEMPERATURE_RANGE = (math.log(0.01), math.log(1.0))


def wasserstein_squared(mean_a: Tensor, std_a: Tensor, mean_b: Tensor, std_b: Tensor) -> Tensor:
    r"""Return the squared 2-Wasserstein distances between two sets of diagonal Gaussians.

    .. math:: W_2^2(i, j) = \lVert \mu_i - \mu_j \rVert^2 + \lVert \sigma_i - \sigma_j \rVert^2

    The closed form for diagonal (commuting) covariances, computed in float32 or wider even under autocast.

    Args:
        mean_a: (A, E).
        std_a: (A, E), standard deviations.
        mean_b: (B, E).
        std_b: (B, E), standard deviations.

    Returns:
        (A, B), not negative.

    Examples:
        >>> one, zero = torch.ones(1, 2), torch.zeros(1, 2)
        >>> wasserstein_squared(one, one, zero, 3 * one)
        tensor([[10.]])
    """
    with torch.autocast(mean_a.device.type, enabled=False):
        a = _at_least_float32(torch.cat([mean_a, std_a], dim=-1))
        b = _at_least_float32(torch.cat([mean_b, std_b], dim=-1))
        square_a = a.square().sum(dim=-1, keepdim=True)
        square_b = b.square().sum(dim=-1, keepdim=True)
        return (square_a + square_b.T - 2 * a @ b.T).clamp_min(0)


def wasserstein_info_nce(
    mean_a: Tensor, std_a: Tensor, mean_b: Tensor, std_b: Tensor, temperature: Tensor | float
) -> Tensor:
    r"""Contrast the two modalities of each utterance against those of the others, in both directions.

    .. math::
        S_{ij} = - W_2^2(i, j) / (2 E \tau), \qquad
        L = \tfrac12 \left[ \mathrm{CE}(S, \mathrm{diag}) + \mathrm{CE}(S^\top, \mathrm{diag}) \right]

    Args:
        mean_a: (N, E); row i belongs to the same utterance in both modalities.
        std_a: (N, E).
        mean_b: (N, E).
        std_b: (N, E).
        temperature: tau, scalar > 0.

    Returns:
        Scalar, nats.

    Note:
        MAP (Ji et al., CVPR 2023) writes S = (-a W + b) / tau. b cancels in both softmaxes; a = 1 / (2 E)
        makes tau independent of the width.
    """
    distance = wasserstein_squared(mean_a, std_a, mean_b, std_b)
    similarity = -distance / (2 * mean_a.shape[-1] * temperature)
    target = torch.arange(len(similarity), device=similarity.device)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))


class AlignmentLoss(nn.Module):
    r"""Average `wasserstein_info_nce` over the pairs of modalities.

    Uses no labels. A pair uses the utterances in which both of its modalities are observed; with fewer than
    two of them it contributes 0.

    Args:
        temperature: Start of the learned temperature :math:`\tau = e^\theta`, kept within [0.01, 1].

    References:
        Sun et al., "Enhancing Emotion Recognition in Incomplete Data: A Novel Cross-Modal Alignment,
        Reconstruction, and Refinement Framework", 2025, https://arxiv.org/abs/2407.09029, alignment phase.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> Tensor:
        """Return tau, a scalar in [0.01, 1].

        Theta keeps its gradient beyond the bounds: with a plain clamp it would be zero there, and tau would
        never leave a bound that it once crossed.
        """
        theta = self.log_temperature
        return (theta + (theta.clamp(*_LOG_TEMPERATURE_RANGE) - theta).detach()).exp()

    def forward(self, mean: Tensor, std: Tensor, observed: Tensor) -> Tensor:
        """Return the loss (scalar, nats) of mean, std (B, M, E) and observed (B, M) bool."""
        # Theta stays in the graph even when no pair is complete: DistributedDataParallel waits for it.
        nothing = 0.0 * (mean.sum() + std.sum() + self.temperature)
        losses = []
        for m, n in combinations(range(mean.shape[1]), 2):
            both = observed[:, m] & observed[:, n]
            if both.sum() >= 2:
                a, b = (mean[both, m], std[both, m]), (mean[both, n], std[both, n])
                losses.append(wasserstein_info_nce(*a, *b, self.temperature))
            else:
                losses.append(nothing)
        return torch.stack(losses).mean()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
