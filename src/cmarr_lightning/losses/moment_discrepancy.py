"""Central moment discrepancy: how far two sets of vectors are from one distribution."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

__all__ = ["central_moment_discrepancy", "pairwise_discrepancy"]


def central_moment_discrepancy(x: Tensor, y: Tensor, order: int = 5) -> Tensor:
    r"""Compare means and central moments per coordinate.

    .. math:: \lVert \mu_x - \mu_y \rVert_2 + \sum_{k=2}^{\text{order}} \lVert c_k(x) - c_k(y) \rVert_2, \qquad
       c_k(x) = \mathrm{mean}_b\, (x_b - \mu_x)^k

    Args:
        x: (B, E), B > 0.
        y: (B', E).
        order: Highest moment, at least 1.

    Returns:
        Scalar >= 0. Where a norm is 0 its gradient is 0 (the square root's would be infinite).

    References:
        Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning", 2017,
        https://arxiv.org/abs/1702.08811, Definition 2.

    Note:
        As in IF-MMIN the coordinates are not bounded and the terms not divided by the range, so that the high moments
        of large embeddings dominate at first.

    Examples:
        >>> central_moment_discrepancy(torch.zeros(4, 2), torch.full((4, 2), 3.0)).item()  # sqrt(9 + 9)
        4.242640495300293
    """
    x, y = (rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (x, y))
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    discrepancy: Tensor = torch.linalg.vector_norm(mean_x - mean_y)
    x, y = x - mean_x, y - mean_y
    for k in range(2, order + 1):
        discrepancy = discrepancy + torch.linalg.vector_norm(x.pow(k).mean(dim=0) - y.pow(k).mean(dim=0))
    return discrepancy


def pairwise_discrepancy(embeddings: Tensor, observed: Tensor) -> Tensor:
    """Average `central_moment_discrepancy` over the pairs of modalities.

    Args:
        embeddings: (B, M, E).
        observed: (B, M) bool; a pair that no utterance of the batch has on either side counts as 0.

    Returns:
        Scalar.
    """
    terms = []
    for i, j in combinations(range(embeddings.shape[1]), 2):
        x, y = embeddings[observed[:, i], i], embeddings[observed[:, j], j]
        terms.append(central_moment_discrepancy(x, y) if len(x) and len(y) else 0.0 * embeddings.float().sum())
    return torch.stack(terms).mean()
