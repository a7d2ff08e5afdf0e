"""Packed ragged arrays: the frames of many utterances end to end, checked and streamed to a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmarr_lightning.errors import InputError

__all__ = ["PackedArray", "PackedWriter"]


@dataclass(frozen=True)
class PackedArray:
    """One modality of n utterances.

    Attributes:
        values: (F, D) frames of all utterances, end to end.
        lengths: (n,) int64 frames per utterance, 0 = absent; their sum is F.
        kind: "sequence", or "vector" = at most one frame per utterance.
    """

    values: np.ndarray
    lengths: np.ndarray
    kind: str

    @classmethod
    def of_one(cls, array: np.ndarray, place: str) -> PackedArray:
        """Pack one utterance: (T, D) frames or a (D,) vector.

        Raises:
            InputError: Another number of axes, T = 0 or D = 0.
        """
        if array.ndim not in (1, 2):
            raise InputError(f"{place}: {_shape(array)}", remedy="save (T, D) frames or a (D,) vector")
        if array.size == 0:
            raise InputError(
                f"{place}: empty, {_shape(array)}", remedy="leave the modality of this utterance out instead"
            )
        kind = "vector" if array.ndim == 1 else "sequence"
        frames = np.atleast_2d(array)
        return cls(frames, np.array([len(frames)]), kind)

    @classmethod
    def of_many(cls, array: np.ndarray, lengths: np.ndarray | None, modality: str) -> PackedArray:
        """Pack n utterances: (n, D) vectors, (n, T, D) sequences, or with `lengths` (F, D) frames.

        Raises:
            InputError: Another number of axes, T = 0 or D = 0.
            ValueError: Lengths that do not add up to F.
        """
        axes = (2, 3) if lengths is None else (2,)
        if array.ndim not in axes or 0 in array.shape[1:]:
            raise InputError(
                f"{modality}: {_shape(array)}", remedy="give (N, D) vectors or (N, T, D) frames, T and D >= 1"
            )
        if lengths is not None:
            lengths = np.asarray(lengths, dtype=np.int64)
            if lengths.min(initial=0) < 0 or lengths.sum() != len(array):
                raise ValueError(f"{modality}: lengths add up to {lengths.sum()}, not to {len(array)} frames")
            return cls(array, lengths, "sequence")
        kind, frames = ("vector", 1) if array.ndim == 2 else ("sequence", array.shape[1])
        packed = array.reshape(-1, array.shape[-1])
        return cls(packed, np.full(len(array), frames, dtype=np.int64), kind)


class PackedWriter:
    """Append packed arrays to one .npy file; memory is that of one block.

    Attributes:
        dim: D, known after the first observed utterance; as `kind` and `dtype`, the type on the disk.
        rows: Utterances so far.
        observed: Utterances that have the modality.
        nan_cells: NaN values that were kept.
        all_nan: Utterances counted as absent because every value was NaN.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._lengths: list[np.ndarray] = []
        self._source_dtype = ""
        self.dim = 0
        self.kind = ""
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.rows = self.observed = self.nan_cells = self.all_nan = 0

    def append(self, packed: PackedArray, place: Callable[[int], str]) -> np.ndarray:
        """Check the next n utterances and write them.

        Args:
            packed: Their frames.
            place: Names utterance i of the n in messages.

        Returns:
            (n,) bool, True = the utterance has the modality.

        Raises:
            InputError: Inf, no floats, or another dim, dtype or kind than before, with the place.
        """
        values, lengths = packed.values, packed.lengths
        if len(values):
            self._check_form(packed, place)
            with np.errstate(over="ignore"):  # what overflows float32 is reported as Inf below
                values = np.ascontiguousarray(values, dtype=self.dtype)
            if not np.isfinite(values).all():
                values, lengths = self._without_nan(values, lengths, place)
        if len(values):
            self._file.write(values.data)
        self._lengths.append(lengths)
        self.rows += len(lengths)
        self.observed += int(np.count_nonzero(lengths))
        return lengths > 0

    def finish(self) -> np.ndarray:
        """Complete the file.

        Returns:
            (N+1,) int64 offsets: utterance i owns the frames offsets[i]:offsets[i+1].
        """
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths]).cumsum()
        self._file.seek(0)
        self._write_header(int(offsets[-1]))
        self.close()
        return offsets

    def close(self) -> None:
        """Close the file; for an interrupted run, harmless after `finish`."""
        self._file.close()

    def _check_form(self, packed: PackedArray, place: Callable[[int], str]) -> None:
        """Compare kind, dtype and dim with what is in the file; the first frames decide."""
        dtype, dim = packed.values.dtype, packed.values.shape[1]
        where = place(int(np.argmax(packed.lengths > 0)))
        if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
            raise InputError(f"{where}: values are {dtype}, not floats", remedy="save float32 values")
        if not self.kind:
            self.dim, self.kind, self._source_dtype = dim, packed.kind, dtype.name
            # Explicitly little-endian: the file is the same wherever it is written.
            self.dtype = np.dtype("<f2") if dtype.itemsize == 2 else np.dtype("<f4")
            self._write_header(0)
        for what, found, before in (
            ("a", packed.kind, self.kind),
            ("dtype", dtype.name, self._source_dtype),
            ("width", dim, self.dim),
        ):
            if found != before:
                raise InputError(
                    f"{where}: {what} {found}, but {what} {before} in the utterances before",
                    remedy="give every utterance the same width, dtype and number of axes",
                )

    def _write_header(self, frames: int) -> None:
        # NumPy pads the header for any number of rows, so the final one fits over the first.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (frames, self.dim),
            },
        )

    def _without_nan(
        self, values: np.ndarray, lengths: np.ndarray, place: Callable[[int], str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Refuse Inf, drop the utterances that are all NaN and count the NaN cells that stay."""
        ends = lengths.cumsum()
        infinite = np.isinf(values).any(axis=1)
        if infinite.any():
            first = int(np.argmax(infinite))
            row = int(np.searchsorted(ends, first, side="right"))
            frame, column = first - int(ends[row] - lengths[row]), int(np.argmax(np.isinf(values[first])))
            raise InputError(
                f"{place(row)}: Inf (or beyond {self.dtype.name}) in frame {frame}, column {column}",
                remedy="clip or recompute the feature; NaN marks a missing value",
            )
        per_frame = np.concatenate([[0], np.isnan(values).sum(axis=1)]).cumsum()
        nan_cells = per_frame[ends] - per_frame[ends - lengths]
        all_nan = (lengths > 0) & (nan_cells == lengths * self.dim)
        self.all_nan += int(all_nan.sum())
        self.nan_cells += int(nan_cells[~all_nan].sum())
        return values[~np.repeat(all_nan, lengths)], np.where(all_nan, 0, lengths)


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype} array of shape {array.shape}"
