"""Means of loss terms over an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["EpochMeans"]


class EpochMeans:
    """Average named scalars over the batches of an epoch, by batch size; logging each step would cost more.

    Examples:
        >>> means = EpochMeans()
        >>> means.add({"loss": torch.tensor(1.0)}, 3)
        >>> means.add({"loss": torch.tensor(5.0)}, 1)
        >>> means.take()
        {'loss': tensor(2.)}
    """

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._sizes: list[int] = []
        self._names: tuple[str, ...] = ()

    def add(self, values: Mapping[str, Tensor], size: int) -> None:
        """Count the scalars of a batch of so many utterances; the names are the same in all batches."""
        self._names = tuple(values)
        self._values.append(torch.stack(list(values.values())).detach())
        self._sizes.append(size)

    def take(self) -> dict[str, Tensor]:
        """Return the means and forget them; empty if nothing was counted."""
        if not self._values:  # resumed at the end of an epoch
            return {}
        values = torch.stack(self._values)
        weight = torch.tensor(self._sizes, device=values.device, dtype=values.dtype)
        means = dict(zip(self._names, weight @ values / weight.sum(), strict=True))
        self._values, self._sizes = [], []
        return means
