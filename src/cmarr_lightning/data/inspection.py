"""What a feature store holds: shapes, lengths, classes, missing and suspicious values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.modalities import condition_name

__all__ = ["QUANTILES", "ModalityReport", "StoreReport", "inspect_store"]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
"""Where the distribution of lengths is read off."""

_BLOCK_CELLS = 1 << 22  # 16 MB of float32


@dataclass(frozen=True)
class ModalityReport:
    """One modality of a store.

    Attributes:
        name: Its name.
        kind: "sequence" or "vector".
        dim: D of its (T, D) frames.
        dtype: Type on the disk.
        unit: What the numbers are, free text.
        observed: Utterances that have it.
        missing: Utterances that lack it.
        all_nan: How many of the missing ones had NaN values only.
        frames: F, frames of all utterances.
        lengths: Frames per observed utterance at the `QUANTILES`.
        nan_cells: NaN among the F x D values.
        nan_columns: Columns with NaN.
        infinite_columns: Columns with Inf; a store that this package wrote has none.
        constant_columns: Columns with at most one value, NaN left aside.
    """

    name: str
    kind: str
    dim: int
    dtype: str
    unit: str
    observed: int
    missing: int
    all_nan: int
    frames: int
    lengths: tuple[float, ...]
    nan_cells: int
    nan_columns: tuple[int, ...]
    infinite_columns: tuple[int, ...]
    constant_columns: tuple[int, ...]


@dataclass(frozen=True)
class StoreReport:
    """A whole store, whose checksums were right.

    Attributes:
        path: Its folder.
        name: Name of the data.
        source: What it was made from.
        synthetic: True = no real recordings.
        notes: What a reader should know about how the data came in.
        checksum: SHA-256 that identifies the data.
        utterances: N.
        modalities: One report per modality.
        classes: Utterances per session (rows) and label (columns; "" = outside the task).
        conditions: What the utterances have on the disk, "audio+text" and so on -> how many.
    """

    path: str
    name: str
    source: str
    synthetic: bool
    notes: tuple[str, ...]
    checksum: str
    utterances: int
    modalities: tuple[ModalityReport, ...]
    classes: pd.DataFrame
    conditions: dict[str, int]


def inspect_store(store: FeatureStore) -> StoreReport:
    """Read a store completely, in blocks, and report what is in it.

    Args:
        store: The store.

    Returns:
        The report.

    Raises:
        InputError: A file is not the one that was written (checksum).
    """
    store.verify()
    manifest = store.manifest
    return StoreReport(
        path=str(store.path),
        name=store.name,
        source=store.source,
        synthetic=store.synthetic,
        notes=store.notes,
        checksum=store.checksum,
        utterances=len(store),
        modalities=tuple(_inspect_modality(store, modality) for modality in store.modalities),
        classes=pd.crosstab(manifest["session"], manifest["label"]),
        conditions=_conditions(store),
    )


def _inspect_modality(store: FeatureStore, modality: str) -> ModalityReport:
    lengths, values = store.lengths(modality), store.values(modality)
    present = lengths[lengths > 0]
    nan = np.zeros(values.shape[1], dtype=np.int64)
    infinite = np.zeros(values.shape[1], dtype=bool)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    for block in _blocks(values):
        nan += np.isnan(block).sum(axis=0)
        infinite |= np.isinf(block).any(axis=0)
        # fmin and fmax pass over NaN
        low = np.fmin(low, np.fmin.reduce(block, axis=0))
        high = np.fmax(high, np.fmax.reduce(block, axis=0))
    return ModalityReport(
        name=modality,
        kind=store.kinds[modality],
        dim=store.dims[modality],
        dtype=values.dtype.name,
        unit=store.units[modality],
        observed=len(present),
        missing=len(store) - len(present),
        all_nan=int(store.counts["all_nan"][modality]),
        frames=len(values),
        lengths=tuple(float(q) for q in np.quantile(present, QUANTILES)),
        nan_cells=int(nan.sum()),
        nan_columns=_columns(nan > 0),
        infinite_columns=_columns(infinite),
        constant_columns=_columns(~(low < high)),
    )


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _BLOCK_CELLS // values.shape[1])
    return (np.asarray(values[start : start + rows]) for start in range(0, len(values), rows))


def _columns(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist())


def _conditions(store: FeatureStore) -> dict[str, int]:
    patterns, counts = np.unique(store.observed(), axis=0, return_counts=True)
    named = {
        condition_name([m for m, has in zip(store.modalities, pattern, strict=True) if has]): int(count)
        for pattern, count in zip(patterns, counts, strict=True)
    }
    return dict(sorted(named.items(), key=lambda item: -item[1]))
