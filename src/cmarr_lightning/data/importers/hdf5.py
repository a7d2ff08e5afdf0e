"""Flat HDF5 files with one dataset of frames per utterance, read without following any link."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from cmarr_lightning.data.importers.guards import UNREADABLE, SizeBudget
from cmarr_lightning.errors import InputError

__all__ = ["HDF5Frames"]

_AGAIN = "copy or download the file again"


class HDF5Frames:
    """The frames of all utterances in one HDF5 file, one dataset each.

    Links to other files, data kept in other files and objects are refused; sizes are checked before reading.

    Args:
        path: The file.
        budget: What its arrays may claim.

    Raises:
        InputError: Not a readable HDF5 file, or an empty one.
    """

    def __init__(self, path: Path, budget: SizeBudget) -> None:
        self.path = path
        self._budget = budget
        try:
            self._file = h5py.File(path, "r")
            self.keys: frozenset[str] = frozenset(self._file.keys())
        except UNREADABLE as error:
            raise InputError(f"{path}: not a readable HDF5 file ({error})", remedy=_AGAIN) from error
        if not self.keys:
            raise InputError(f"{path}: holds nothing", remedy=_AGAIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def frames(self, key: str) -> np.ndarray:
        """Read one utterance.

        Args:
            key: Its id.

        Returns:
            (T, D) frames or a (D,) vector, floats as they are in the file.

        Raises:
            InputError: A link or a group in place of the frames, no floats, T = 0, data that were never
                written, or more than the budget.
        """
        where = f"{self.path}, key {key!r}"
        try:
            self._refuse_link(key, where)
            dataset = self._file[key]
            self._check(dataset, where)
            frames: np.ndarray = dataset[()]
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(f"{where}: cannot be read ({error})", remedy=_AGAIN) from error
        return frames

    def _refuse_link(self, key: str, where: str) -> None:
        # By the number of the type, because building h5py's link objects for every utterance takes longer.
        if self._file.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
            raise InputError(
                f"{where}: is a link, which could lead to another file", remedy="copy the data into the file itself"
            )

    def _check(self, dataset: object, where: str) -> None:
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(
                f"{where}: a group, not the frames of an utterance",
                remedy="name a file with one (T, D) dataset per utterance",
            )
        creation = dataset.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise InputError(f"{where}: its data are in another file", remedy="copy the data into the file itself")
        shape, dtype = dataset.shape, dataset.dtype
        if dtype.kind != "f":
            raise InputError(f"{where}: {dtype}, not floats", remedy="save float32 or float64 values")
        if shape is None or len(shape) not in (1, 2) or 0 in shape:
            raise InputError(
                f"{where}: shape {shape}", remedy="save (T, D) frames, T >= 1, or leave the utterance out of the file"
            )
        # A chunk is decompressed whole, and that of a growing dataset may be far larger than the dataset.
        self._budget.take(max(math.prod(shape), math.prod(dataset.chunks or (0,))) * dtype.itemsize, where)
        if not dataset.id.get_storage_size():
            raise InputError(f"{where}: {shape} values are announced, none is written", remedy=_AGAIN)
