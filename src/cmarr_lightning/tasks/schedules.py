"""Learning-rate schedules as factors on the peak."""

from __future__ import annotations

import math

__all__ = ["linear_decay", "warmup_cosine"]


def warmup_cosine(step: int, total: int, warmup_fraction: float) -> float:
    """Rise linearly over a part of the steps, under a half cosine that falls to 0 at the last.

    Args:
        step: Optimiser step, from 0.
        total: All steps, at least 1.
        warmup_fraction: Part of the steps over which the factor rises.

    Returns:
        Factor in [0, 1].

    Examples:
        >>> [round(warmup_cosine(step, 10, 0.2), 2) for step in (0, 1, 2, 5, 10)]
        [0.33, 0.65, 0.9, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / (warmup_fraction * total + 1))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def linear_decay(epoch: int, constant: int, decay: int) -> float:
    r"""Stay at 1 for N epochs, then fall linearly over D epochs without reaching 0.

    .. math:: 1 - \max(0, e - N) / (D + 1)

    Args:
        epoch: e - 1, counted from 0.
        constant: N.
        decay: D.

    Examples:
        >>> [round(linear_decay(epoch, 2, 3), 2) for epoch in range(5)]
        [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return 1.0 - max(0, epoch + 1 - constant) / (decay + 1)
