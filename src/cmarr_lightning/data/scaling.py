"""Statistics of the training fold with which features are clipped and standardised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError

__all__ = ["FeatureStatistics", "compute_statistics"]

_QUANTILE_FRAMES = 20_000
_CHUNK_VALUES = 2**18  # 1 MB of float32: a chunk stays in the cache from the first pass over it to the last
_CONSTANT = 1e-6  # a spread below this share of the values themselves is rounding


@dataclass(frozen=True)
class FeatureStatistics:
    """What scales one modality: ``(clamp(x, low, high) - mean) / std``.

    Attributes:
        mean: (D,) float32, mean of the clipped training values.
        std: (D,) float32, their standard deviation; 1 where a column is constant.
        low: (D,) float32, smallest value let through.
        high: (D,) float32, largest value let through.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def compute_statistics(
    store: FeatureStore, modality: str, rows: np.ndarray, *, clip_quantile: float = 0.005
) -> FeatureStatistics:
    """Compute the statistics of one modality over the frames of some utterances, and of no others.

    Every value of these frames enters mean and standard deviation. The quantiles come from at most 20,000
    frames, evenly spaced, so that they cost little however large the data are; the choice is fixed, not
    random.

    Note:
        NaN policy. An utterance whose values of a modality are all NaN does not have the modality (the store
        records it as unobserved). Single NaN cells are left out of the statistics and become the training
        mean, 0 after scaling. Inf is an error. A column without any training value, or with one constant
        value, is 0 after scaling whatever it holds later: the model has learnt nothing about it.

    Args:
        store: Where the features are.
        modality: Which of them.
        rows: (R,) rows of the training utterances; those without the modality are skipped.
        clip_quantile: Share of values clipped at either end, 0 <= q < 0.5.

    Raises:
        InputError: None of the rows has the modality, or a value is Inf.
    """
    rows = np.sort(rows)
    frames = _frames_of(store.offsets(modality), rows)
    if not len(frames):
        raise InputError(
            f"{store.path}: no training utterance has {modality}",
            remedy=f"leave {modality} out of `modalities` or choose other rows",
        )
    with np.errstate(invalid="ignore"):  # Inf - Inf in the quantiles: reported with its utterance a moment later
        low, high = _quantiles(_evenly_spaced(store.values(modality), frames), clip_quantile)
        mean, std = _moments(store, modality, frames, low, high)
    return FeatureStatistics(mean=mean, std=std, low=low, high=high)


def _frames_of(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """List the frames that the rows own, (F,) int64."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    before = np.cumsum(lengths) - lengths
    frames: np.ndarray = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    return frames


def _evenly_spaced(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Take at most `_QUANTILE_FRAMES` of the frames, first and last included, as (D, F) float32."""
    count = min(len(frames), _QUANTILE_FRAMES)
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(np.int64)]
    columns: np.ndarray = np.ascontiguousarray(values[chosen].T, dtype=np.float32)
    return columns


def _quantiles(columns: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray]:
    """Get the q and 1 - q quantiles of each row of (D, F), NaN left out; 0 where nothing is left."""
    columns.sort(axis=1)  # puts NaN last; several times faster than np.nanquantile
    count = columns.shape[1] - np.isnan(columns).sum(axis=1)
    last = np.maximum(count - 1, 0)

    def quantile(share: float) -> np.ndarray:
        position = share * last
        below = np.floor(position).astype(np.int64)
        above = np.minimum(below + 1, last)
        left, right = (np.take_along_axis(columns, at[:, None], axis=1)[:, 0] for at in (below, above))
        interpolated = left + (right - left) * (position - below).astype(np.float32)
        return np.where(count > 0, interpolated, 0).astype(np.float32)

    return quantile(q), quantile(1 - q)


def _moments(
    store: FeatureStore, modality: str, frames: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Get mean and standard deviation (D,) of the clipped values, NaN left out."""
    # Sums of differences from a value within the range: squares of a large offset would drown the variance.
    shift = 0.5 * (low + high)
    total, squares, count = (np.zeros(len(low)) for _ in range(3))
    for chunk, finite in _finite_chunks(store, modality, frames):
        chunk = np.clip(chunk, low, high, out=chunk)
        chunk -= shift
        if not finite.all():
            chunk[~finite] = 0
        total += chunk.sum(axis=0)
        squares += np.einsum("fd,fd->d", chunk, chunk)
        count += finite.sum(axis=0)
    known = np.maximum(count, 1)
    mean = total / known
    std = np.sqrt(np.maximum(squares / known - mean**2, 0))
    std[std <= _CONSTANT * np.maximum(np.abs(low), np.abs(high))] = 1
    return (mean + shift).astype(np.float32), std.astype(np.float32)


def _finite_chunks(store: FeatureStore, modality: str, frames: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read the frames in pieces: (F', D) float32 values, and where they are not NaN."""
    values = store.values(modality)
    step = max(1, _CHUNK_VALUES // values.shape[1])
    for first in range(0, len(frames), step):
        chunk = np.take(values, frames[first : first + step], axis=0).astype(np.float32, copy=False)
        finite = np.isfinite(chunk)
        if not finite.all() and (infinite := np.isinf(chunk)).any():
            frame = frames[first + int(infinite.any(axis=1).argmax())]
            row = int(np.searchsorted(store.offsets(modality), frame, side="right")) - 1
            raise InputError(
                f"{store.path}: utterance {store.manifest['utterance_id'].iloc[row]!r} has Inf in {modality}",
                remedy="mend the feature or write NaN where a value is unknown, and prepare the store again",
            )
        yield chunk, finite
    store.release()
