"""From rows of a store to a padded batch, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.conditions import ConditionDraw, draw_conditions, utterance_keys
from cmarr_lightning.data.noise import NoiseSource
from cmarr_lightning.data.sampler import BatchRequest
from cmarr_lightning.data.store import FeatureStore

__all__ = ["UtteranceDataset", "padding_costs"]

_RESIDENT_BYTES = 2**26  # faults map the neighbours of a page too: several times as much becomes resident


class UtteranceDataset(Dataset[MultimodalBatch]):
    """The utterances of a store, read in whole batches.

    Indexed by a `BatchRequest`, not by a number: use it with
    ``DataLoader(dataset, sampler=LengthBucketBatchSampler(...), batch_size=None)``. NaN cells are handed on
    as they are; the scaler of the model imputes them.

    Args:
        store: Where the features are; a worker process maps the same files.
        modalities: The M modalities to read, in the order of the columns of `observed` and `drawn`.
        labels: (N,) int64 class index of every row of the store, -1 = none.
        draw: Which conditions are drawn in training; None: none, every observed modality is present
            (evaluation).
        seed: Seed of the conditions.
        noise: What is added to the features.
    """

    def __init__(
        self,
        store: FeatureStore,
        modalities: Sequence[str],
        labels: np.ndarray,
        *,
        draw: ConditionDraw | None = None,
        seed: int = 0,
        noise: NoiseSource | None = None,
    ) -> None:
        self.store = store
        self.modalities = tuple(modalities)
        self.labels = labels
        self.draw = draw
        self.seed = seed
        self.noise = noise
        self._keys = utterance_keys(store.manifest["utterance_id"])
        self._bytes_read = 0

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, request: BatchRequest) -> MultimodalBatch:
        """Read the B utterances of a request."""
        rows = request.rows
        gathered = {m: _gather(self.store.values(m), self.store.offsets(m), rows) for m in self.modalities}
        clean = {m: torch.from_numpy(block) for m, (block, _, _) in gathered.items()}
        noisy = None
        if self.noise is not None:
            noisy = {
                m: torch.from_numpy(self.noise.add(block, lengths, m, self._keys[rows], request.epoch))
                for m, (block, _, lengths) in gathered.items()
            }
        self._count(sum(features.nbytes for features, _, _ in gathered.values()))
        observed = np.stack([lengths > 0 for _, _, lengths in gathered.values()], axis=1)
        drawn = observed
        if self.draw is not None:
            keys = self._keys[rows]
            drawn = draw_conditions(observed, keys, seed=self.seed, epoch=request.epoch, draw=self.draw)
        return MultimodalBatch(
            features=clean if noisy is None else noisy,
            padding_mask={m: padding_mask for m, (_, padding_mask, _) in gathered.items()},
            observed=torch.from_numpy(observed),
            drawn=torch.from_numpy(drawn.copy()),
            labels=torch.from_numpy(self.labels[rows]),
            rows=torch.from_numpy(rows.copy()),
            repeated=torch.from_numpy(request.repeated.copy()),
            clean=None if noisy is None else clean,
        )

    def _count(self, num_bytes: int) -> None:
        """Release the store's pages every so often."""
        self._bytes_read += num_bytes
        if self._bytes_read > _RESIDENT_BYTES:
            self.store.release()
            self._bytes_read = 0


def padding_costs(store: FeatureStore, modalities: Sequence[str]) -> np.ndarray:
    """Tell how much each utterance can lengthen the batch that it is in.

    The values of its sequences; one that is absent counts as the median sequence, for it is padded like
    one, and missing utterances must not be sorted into batches of their own.

    Returns:
        (N,) int64, equal for all where no length varies.
    """
    costs = np.zeros(len(store), dtype=np.int64)
    for modality in modalities:
        lengths = store.lengths(modality)
        observed = lengths > 0
        if observed.any():
            typical = int(np.median(lengths[observed]))
            costs += np.where(observed, lengths, typical) * store.dims[modality]
    return costs


def _gather(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Copy the frames (F, D) of B utterances into one padded block.

    Returns:
        (B, T, D) float32, 0 in the padding; (B, T) bool padding mask with the first frame always unmasked;
        (B,) lengths.
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    time = np.arange(max(1, int(lengths.max(initial=0))))
    padding = time >= lengths[:, None]
    # Padding repeats the last frame and is then overwritten: one copy without a loop, at the speed of memory.
    frames = starts[:, None] + np.minimum(time, np.maximum(lengths - 1, 0)[:, None])
    if len(values):
        block = np.take(values, frames, axis=0, mode="clip").astype(np.float32, copy=False)
    else:
        block = np.zeros((*frames.shape, values.shape[1]), dtype=np.float32)
    if padding.any():
        block[padding] = 0
    padding[:, 0] = False
    return block, torch.from_numpy(padding), lengths
