"""Averaged weights: the ones that are validated, tested and kept."""

from __future__ import annotations

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["AveragedWeights"]


class AveragedWeights(WeightAveraging):
    r"""Keep an exponential moving average of the weights over the optimiser steps.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta

    Validation sees the average, and checkpoints hold it as their `state_dict`. Buffers (scaling, class weights) are
    copied. Lightning's own `EMAWeightAveraging` does the same one tensor at a time, which costs a step of a small
    network several percent.

    Args:
        decay: d in [0, 1); 0 turns averaging off.

    Raises:
        ValueError: decay is not in [0, 1).
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
