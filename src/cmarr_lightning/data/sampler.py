"""Batches of utterances of similar length, the same whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from cmarr_lightning.errors import InputError

__all__ = ["BatchRequest", "LengthBucketBatchSampler"]

_CHUNK_BATCHES = 16


@dataclass(frozen=True)
class BatchRequest:
    """What the sampler asks of the dataset.

    Attributes:
        rows: (B,) int64 row of the store's manifest.
        epoch: The epoch for which conditions are drawn, from 0.
        repeated: (B,) bool, True = filled in so that all processes get equally many rows.
    """

    rows: np.ndarray
    epoch: int
    repeated: np.ndarray


class LengthBucketBatchSampler(DistributedSampler[BatchRequest]):
    """Group utterances of similar length into batches and share every batch among the processes.

    A *global* batch has ``batch_size * world_size`` rows and process r takes every ``world_size``-th of
    them from the r-th on. So two processes see exactly the rows that one process sees with twice the batch
    size.

    In training the rows are shuffled from (seed, epoch), what does not fill a batch is left out, chunks of 16
    global batches are sorted by cost and cut into batches, and the batches are shuffled again. Rows of
    equal cost stay in random order, so that data without sequences are simply shuffled. In evaluation all
    rows come in the order of their cost, and the last batch repeats a row where the processes would get
    unequally many.

    It is a `DistributedSampler` because Lightning keeps such a sampler as it is and sets its epoch. Hand it
    to the loader as ``DataLoader(dataset, sampler=sampler, batch_size=None)``: it yields whole batches.

    Args:
        rows: (R,) int64 rows of the store's manifest.
        costs: (R,) what a row costs in padding, in any unit, e.g. its number of frames.
        batch_size: Rows per process and batch.
        training: Shuffle and leave out the remainder.
        seed: Seed of the order, >= 0.
        world_size: Number of processes.
        rank: Number of this process, from 0.

    Raises:
        InputError: Fewer training rows than one global batch.
    """

    def __init__(
        self,
        rows: np.ndarray,
        costs: np.ndarray,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(_Rows(rows), world_size, rank, shuffle=training, seed=seed, drop_last=training)
        self.rows = rows
        self.costs = costs
        self.global_batch_size = batch_size * world_size
        if training and len(rows) < self.global_batch_size:
            raise InputError(
                f"{len(rows)} training utterances do not fill one batch of {batch_size}"
                + (f" on each of {world_size} processes" if world_size > 1 else ""),
                remedy="set a smaller `batch_size`",
            )

    def __len__(self) -> int:
        """Count the batches of this process; all processes have equally many."""
        full, rest = divmod(len(self.rows), self.global_batch_size)
        return full + (rest > 0 and not self.shuffle)

    def __iter__(self) -> Iterator[BatchRequest]:
        for batch in self._shuffled_batches() if self.shuffle else self._ordered_batches():
            repeated = np.arange(len(batch) + -len(batch) % self.num_replicas) >= len(batch)
            filled = np.pad(batch, (0, int(repeated.sum())), mode="edge")
            mine = slice(self.rank, None, self.num_replicas)
            yield BatchRequest(rows=filled[mine], epoch=self.epoch, repeated=repeated[mine])

    def _shuffled_batches(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng((self.seed, self.epoch))
        size = self.global_batch_size
        order = random.permutation(len(self.rows))[: len(self) * size]
        for first in range(0, len(order), _CHUNK_BATCHES * size):
            chunk = order[first : first + _CHUNK_BATCHES * size]
            order[first : first + len(chunk)] = chunk[np.argsort(self.costs[chunk], kind="stable")]
        batches = self.rows[order].reshape(-1, size)
        yield from random.permutation(batches)

    def _ordered_batches(self) -> Iterator[np.ndarray]:
        order = np.argsort(self.costs, kind="stable")
        for first in range(0, len(order), self.global_batch_size):
            yield self.rows[order[first : first + self.global_batch_size]]


class _Rows(Dataset[BatchRequest]):
    """Nothing but a length, for the base class."""

    def __init__(self, rows: np.ndarray) -> None:
        self._count = len(rows)

    def __len__(self) -> int:
        return self._count
