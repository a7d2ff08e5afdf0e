"""What a data loader hands to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["MultimodalBatch"]


@dataclass
class MultimodalBatch:
    """B utterances with M modalities, some of which may be absent.

    Not frozen: Lightning's device transfer rebuilds dataclasses field by field.

    Attributes:
        features: Per modality (B, T, D) float32, unscaled. T differs between modalities and is 1 for utterance
            vectors. Padded frames and the rows of unobserved modalities hold zeros, which no model may read.
        padding_mask: Per modality (B, T) bool, True = padding. An unobserved row has its first frame unmasked,
            so that a softmax over frames stays finite.
        observed: (B, M) bool, True = the utterance has this modality on disk. Never all False in a row.
        drawn: (B, M) bool, True = present in the condition drawn for this utterance and epoch. A subset of
            `observed`, never empty. Equal to `observed` in evaluation.
        labels: (B,) int64 class index, -1 = no label.
        rows: (B,) int64 row of the store's manifest.
        repeated: (B,) bool, True = filled in so that all processes get equally many rows; not to be scored.
        clean: The features before noise was added to them, for a teacher; None where `features` are clean.
    """

    features: dict[str, Tensor]
    padding_mask: dict[str, Tensor]
    observed: Tensor
    drawn: Tensor
    labels: Tensor
    rows: Tensor
    repeated: Tensor
    clean: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def completed(self, feature_dims: Mapping[str, int]) -> MultimodalBatch:
        """Return the batch with exactly these modalities, in this order; those that it lacks are absent from all rows.

        Args:
            feature_dims: D per modality.
        """
        if list(feature_dims) == list(self.features):
            return self
        rows, empty = len(self), self.observed.new_zeros(len(self))
        first = next(iter(self.features.values()))
        column = dict(zip(self.features, range(self.observed.shape[1]), strict=True))

        def columns(flags: Tensor) -> Tensor:
            return torch.stack([flags[:, column[m]] if m in column else empty for m in feature_dims], dim=1)

        return replace(
            self,
            features={m: self.features.get(m, first.new_zeros(rows, 1, dim)) for m, dim in feature_dims.items()},
            padding_mask={m: self.padding_mask.get(m, empty.unsqueeze(1)) for m in feature_dims},
            observed=columns(self.observed),
            drawn=columns(self.drawn),
            clean=None,
        )
