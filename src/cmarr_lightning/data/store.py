"""Feature store: packed ragged arrays and a table of utterances in one folder, opened by memory mapping."""

from __future__ import annotations

import hashlib
import json
import mmap
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.errors import InputError

__all__ = ["FeatureStore"]

STORE_FILE = "store.json"
MANIFEST_FILE = "manifest.parquet"
FORMAT = "cmarr feature store"
FORMAT_VERSION = 1
KINDS = ("sequence", "vector")
COUNTS = ("observed", "nan_cells", "all_nan")

_PREPARE_AGAIN = "prepare the store again with `cmarr prepare` or restore it from a copy"


class FeatureStore:
    """N utterances with up to M modalities, read from the disk without copying.

    All readers of one store on one machine share the pages of its arrays: splits, data-loader workers and
    processes. A pickled store is a path; unpickling maps the files again.

    Attributes:
        path: The folder, absolute.
        name: Name of the data.
        source: What the store was made from.
        synthetic: True = no real recordings; every table made from the store has to say so.
        notes: What a reader should know about how the data came in.
        fingerprint: Identifies what was imported, "" = unknown.
        modalities: The M names in the order of the columns of `observed`.
        dims: Per modality the D of its (T, D) frames.
        kinds: Per modality "sequence", or "vector" = exactly one frame when observed.
        units: Per modality what the numbers are, free text, often "".
        counts: utterances (N), and per modality observed (utterances), nan_cells (kept in the values) and
            all_nan (utterances that are unobserved because every value was NaN).
        checksum: One SHA-256 over the recorded checksums: identity of the data.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Map the files that a header describes; users call `open`."""
        self.path = path
        self.name: str = header["name"]
        self.source: str = header["source"]
        self.synthetic: bool = header["synthetic"]
        self.notes: tuple[str, ...] = tuple(header.get("notes", ()))
        self.fingerprint: str = header.get("fingerprint", "")
        described: dict[str, dict[str, Any]] = header["modalities"]
        self.modalities: tuple[str, ...] = tuple(described)
        self.dims: dict[str, int] = {m: described[m]["dim"] for m in described}
        self.kinds: dict[str, str] = {m: described[m]["kind"] for m in described}
        self.units: dict[str, str] = {m: described[m]["unit"] for m in described}
        self.counts: dict[str, Any] = header["counts"]
        self.checksum = checksum_of(header)
        self._files = recorded_files(header)
        for file, record in self._files.items():
            self._check_size(file, record["bytes"])
        self._offsets = {m: self._map_offsets(m) for m in described}
        self._values = {m: self._map_values(m, described[m]["dtype"]) for m in described}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store: parse its header, check sizes, shapes and types, map the arrays.

        Contents are not read, see `verify`.

        Raises:
            InputError: No store there, a missing or truncated file, or files that disagree with the header.
        """
        path = Path(path).expanduser().absolute()
        header = _read_header(path)
        try:
            return cls(path, header)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path / STORE_FILE}: entry missing or of the wrong type ({error})", remedy=_PREPARE_AGAIN
            ) from error

    def __len__(self) -> int:
        return int(self.counts["utterances"])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{m} {self.kinds[m]} {self.dims[m]}" for m in self.modalities)
        return f"FeatureStore({str(self.path)!r}: {len(self)} utterances, {shapes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.path, self.checksum)

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The table of utterances, row i <-> index i of every array; to be read, not changed.

        Raises:
            InputError: The table cannot be read or has another number of rows than the arrays.
        """
        path = self.path / MANIFEST_FILE
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})", remedy=_PREPARE_AGAIN) from error
        if len(table) != len(self):
            raise InputError(f"{path}: {len(table)} rows, but the arrays have {len(self)}", remedy=_PREPARE_AGAIN)
        return validate_manifest(table, origin=str(path))

    def values(self, modality: str) -> np.ndarray:
        """Get the packed frames of all utterances: (F, D) float32 or float16, a read-only map of the file."""
        return self._values[self._known(modality)]

    def offsets(self, modality: str) -> np.ndarray:
        """Get (N+1,) int64: utterance i owns the frames offsets[i]:offsets[i+1] of `values`."""
        return self._offsets[self._known(modality)]

    def lengths(self, modality: str) -> np.ndarray:
        """Count the frames per utterance: (N,) int64, 0 = the modality is absent."""
        return np.diff(self.offsets(modality))

    def observed(self) -> np.ndarray:
        """Tell what each utterance has: (N, M) bool, True = on the disk, M in the order of `modalities`."""
        return np.stack([self.lengths(m) > 0 for m in self.modalities], axis=1)

    def get(self, row: int, modality: str) -> np.ndarray:
        """Get the frames of one utterance: a (T, D) view, (0, D) when the modality is absent.

        Raises:
            IndexError: No such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} utterances")
        offsets = self.offsets(modality)
        return self._values[modality][offsets[row] : offsets[row + 1]]

    def release(self) -> None:
        """Let go of the pages of the arrays that were read.

        They stay in the system's cache and come back on the next access, but no longer count as memory of this
        process: a job scheduler would otherwise see every reader of a large store as large as the store.
        """
        for values in self._values.values():
            pages = getattr(values, "_mmap", None)  # an array without values is not mapped
            if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                pages.madvise(mmap.MADV_DONTNEED)

    def verify(self) -> None:
        """Recompute the checksum of every file; reads everything once.

        Raises:
            InputError: A file is not the one that was written; the message names it.
        """
        for file, record in self._files.items():
            path = self.path / file
            try:
                digest = file_record(path)["sha256"]
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error})", remedy=_PREPARE_AGAIN) from error
            if digest != record["sha256"]:
                raise InputError(f"{path}: checksum differs from the recorded one", remedy=_PREPARE_AGAIN)

    def _known(self, modality: str) -> str:
        if modality not in self.dims:
            raise InputError(
                f"{self.path}: no modality {modality!r}", remedy=f"use one of {', '.join(self.modalities)}"
            )
        return modality

    def _check_size(self, file: str, recorded: int) -> None:
        path = self.path / file
        if not path.is_file():
            raise InputError(f"{path}: missing", remedy=_PREPARE_AGAIN)
        if (size := path.stat().st_size) != recorded:
            raise InputError(
                f"{path}: {size} bytes, {recorded} were written (truncated or changed)", remedy=_PREPARE_AGAIN
            )

    def _map_offsets(self, modality: str) -> np.ndarray:
        path = self.path / offsets_file(modality)
        offsets = _map(path)
        if offsets.dtype != np.int64 or offsets.shape != (len(self) + 1,):
            raise _disagreement(path, f"int64 ({len(self) + 1},)", offsets)
        lengths = np.diff(offsets)
        most = 1 if self.kinds[modality] == "vector" else offsets[-1]
        if self.kinds[modality] not in KINDS:
            raise InputError(f"{path}: of an unknown kind {self.kinds[modality]!r}", remedy=_PREPARE_AGAIN)
        if offsets[0] != 0 or lengths.min(initial=0) < 0 or lengths.max(initial=0) > most:
            raise InputError(f"{path}: not the offsets of a {self.kinds[modality]}", remedy=_PREPARE_AGAIN)
        return offsets

    def _map_values(self, modality: str, dtype: str) -> np.ndarray:
        path = self.path / values_file(modality)
        values = _map(path)
        shape = (int(self._offsets[modality][-1]), self.dims[modality])
        if values.dtype.name != dtype or dtype not in ("float32", "float16") or values.shape != shape:
            raise _disagreement(path, f"{dtype} {shape}", values)
        return values


def values_file(modality: str) -> str:
    """Name the file of the packed frames of a modality."""
    return f"{modality}.values.npy"


def offsets_file(modality: str) -> str:
    """Name the file that says which frames belong to which utterance."""
    return f"{modality}.offsets.npy"


def file_record(path: Path) -> dict[str, Any]:
    """Measure a file: its size in bytes and its SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def recorded_files(header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Collect the size and SHA-256 of every file of a store from its header, by name of the file."""
    files: dict[str, dict[str, Any]] = {MANIFEST_FILE: header["manifest"][MANIFEST_FILE]}
    for modality, described in header["modalities"].items():
        # The names are derived, not read: a header from elsewhere cannot point at other files.
        for file in (values_file(modality), offsets_file(modality)):
            files[file] = described["files"][file]
    return files


def checksum_of(header: dict[str, Any]) -> str:
    """Sum up the recorded checksums of all files in one SHA-256."""
    lines = (f"{file} {record['sha256']}\n" for file, record in sorted(recorded_files(header).items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _reopen(cls: type[FeatureStore], path: Path, checksum: str) -> FeatureStore:
    store = cls.open(path)
    if store.checksum != checksum:
        raise InputError(f"{path}: the store was replaced while it was in use", remedy="start the run again")
    return store


def _read_header(path: Path) -> dict[str, Any]:
    file = path / STORE_FILE
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no feature store ({STORE_FILE} not found)", remedy=_find(path)) from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})", remedy="check the path") from error
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error})", remedy=_PREPARE_AGAIN) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{file}: not the header of a feature store", remedy="name the folder of a store")
    if header.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: format version {header.get('version')}, this program reads {FORMAT_VERSION}",
            remedy="prepare the store again with the installed version",
        )
    return header


def _find(path: Path) -> str:
    """Say where a store may be: a kill in the middle of a swap leaves the earlier one beside its place."""
    if earlier := sorted(path.parent.glob(f"{path.name}.earlier-*/{STORE_FILE}")):
        return f"an interrupted overwrite left the earlier store at {earlier[0].parent}: rename it back"
    return "name a folder written by `cmarr prepare` or `cmarr synthesize`"


def _map(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable array ({error})", remedy=_PREPARE_AGAIN) from error
    return array


def _disagreement(path: Path, expected: str, array: np.ndarray) -> InputError:
    return InputError(f"{path}: {array.dtype} {array.shape}, but {STORE_FILE} says {expected}", remedy=_PREPARE_AGAIN)
