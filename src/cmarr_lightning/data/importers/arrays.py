"""Import plain NumPy arrays: one features.npz, or one .npy file per utterance and modality."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import pandas as pd

from cmarr_lightning.data.importers.guards import (
    SAVE_AGAIN,
    UNREADABLE,
    SizeBudget,
    check_text,
    find_under,
    read_npy,
    read_npy_header,
    refuse_some,
)
from cmarr_lightning.data.importers.source import Format, ImportOptions, SourceData
from cmarr_lightning.data.manifest import read_manifest, validate_manifest
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["ARRAYS", "read_arrays"]

NOT_MODALITIES = frozenset({"vad", "label", "labels", "target", "targets", "y"})
"""Names of float arrays in an npz file that are annotations: never features, unless asked for by name."""

_Form: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]
_Forms: TypeAlias = dict[str, _Form]

_CUSTOMARY_ORDER = ("audio", "video", "text")
_BLOCK = 1024  # utterances


def read_arrays(source: Path, options: ImportOptions) -> SourceData:
    """Find the arrays of a folder of NumPy files.

    The folder holds either

    - features.npz, row i of every array = utterance i, with (N, D) vectors or (N, T, D) sequences, and
      metadata.csv with one line per row; without metadata.csv the one-dimensional arrays of the npz file are
      the columns, and utterance_id (or sample_id) has to be among them. Modalities are all float arrays with
      two or three axes, except `NOT_MODALITIES` and names that end in "_names"; or
    - one sub-folder per modality with a file <utterance_id>.npy, (T, D) or (D,), per utterance, and
      metadata.csv (or any single CSV file) with one line per utterance. An utterance without the file of a
      modality lacks that modality.

    Args:
        source: The folder.
        options: `modalities` name arrays or sub-folders.

    Returns:
        The data.

    Raises:
        InputError: No such folder, nothing to import, ids without features or the reverse, or an array that
            cannot be used; the message names file, utterance and remedy.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder", remedy="name a folder with features.npz or .npy files")
    if (source / "features.npz").is_file():
        return _read_npz(source, options)
    return _read_files(source, options)


def _read_npz(source: Path, options: ImportOptions) -> SourceData:
    path, budget = source / "features.npz", SizeBudget(options.max_bytes)
    forms = _npz_forms(path)
    table = source / "metadata.csv"
    manifest = read_manifest(table) if table.is_file() else _npz_manifest(path, forms, budget)
    _check_same_ids(path, forms, manifest, budget)
    chosen = _npz_modalities(path, forms, options.modalities, len(manifest))
    arrays = {modality: _npz_array(path, modality, forms, budget) for modality in chosen}

    def feed(writer: FeatureStoreWriter) -> None:
        for start in range(0, len(manifest), _BLOCK):
            writer.add_block({m: array[start : start + _BLOCK] for m, array in arrays.items()})

    return SourceData(manifest, tuple(chosen), feed)


def _npz_forms(path: Path) -> _Forms:
    """Read shape and dtype of every array of an npz file from its headers; nothing is unpickled."""
    forms: _Forms = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    forms[name] = _header(file, member.file_size, f"{path}: array {name!r}")
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path}: not a readable npz file ({error})", remedy="save it again with numpy.savez"
        ) from error
    return forms


def _header(file: IO[bytes], size: int, where: str) -> _Form:
    try:
        return read_npy_header(file, size)
    except UNREADABLE as error:
        raise InputError(f"{where} cannot be read ({error})", remedy=SAVE_AGAIN) from error


def _npz_array(path: Path, key: str, forms: _Forms, budget: SizeBudget) -> np.ndarray:
    shape, dtype = forms[key]
    budget.take(math.prod(shape) * dtype.itemsize, f"{path}: array {key!r}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: np.ndarray = arrays[key]
        check_text(array)
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UNREADABLE as error:
        raise InputError(f"{path}: array {key!r} cannot be read ({error})", remedy=SAVE_AGAIN) from error


def _npz_manifest(path: Path, forms: _Forms, budget: SizeBudget) -> pd.DataFrame:
    key = next((key for key in ("utterance_id", "sample_id") if key in forms), None)
    if key is None:
        raise InputError(
            f"{path}: neither metadata.csv beside it nor an array utterance_id in it",
            remedy="add metadata.csv with one line per row and a column utterance_id",
        )
    rows = forms[key][0]
    columns = [k for k, (shape, dtype) in forms.items() if len(rows) == 1 and shape == rows]
    table = pd.DataFrame({k: _npz_array(path, k, forms, budget) for k in columns})
    table = table.rename(columns={key: "utterance_id"}).astype({"utterance_id": str})
    return validate_manifest(table, origin=str(path))


def _check_same_ids(path: Path, forms: _Forms, manifest: pd.DataFrame, budget: SizeBudget) -> None:
    """Compare the ids of the npz file with those of the table: rows in another order would mix up labels."""
    if "utterance_id" not in forms:
        return
    ids = _npz_array(path, "utterance_id", forms, budget).tolist()
    table = manifest["utterance_id"].tolist()
    if len(ids) != len(table):
        raise InputError(
            f"{path}: {len(ids)} utterances, but metadata.csv has {len(table)}",
            remedy="write one line per row of the arrays",
        )
    for row, (found, expected) in enumerate(zip(ids, table, strict=True)):
        if found != expected:
            raise InputError(
                f"{path}: row {row} is utterance {found!r}, but {expected!r} in metadata.csv",
                remedy="bring arrays and lines into the same order",
            )


def _npz_modalities(
    path: Path,
    forms: _Forms,
    wanted: Sequence[str] | None,
    rows: int,
) -> list[str]:
    if wanted is None:
        chosen = [
            key
            for key, (shape, dtype) in forms.items()
            if key not in NOT_MODALITIES and not key.endswith("_names") and dtype.kind == "f" and len(shape) in (2, 3)
        ]
    else:
        chosen = list(wanted)
    if not chosen:
        raise InputError(f"{path}: no (N, D) or (N, T, D) float array", remedy="add one per modality")
    for key in chosen:
        if key not in forms:
            raise InputError(f"{path}: no array {key!r} for this modality", remedy=f"use some of {', '.join(forms)}")
        shape, dtype = forms[key]
        if dtype.kind != "f" or len(shape) not in (2, 3) or shape[0] != rows:
            raise InputError(
                f"{path}: array {key!r} is {dtype} {shape}, not float ({rows}, D) or ({rows}, T, D)",
                remedy=f"save one plain row per utterance, or leave {key} out of the named modalities",
            )
    return chosen


def _read_files(source: Path, options: ImportOptions) -> SourceData:
    folders = _modality_folders(source, options.modalities)
    table, budget = _only_csv(source), SizeBudget(options.max_bytes)
    manifest = read_manifest(table)
    ids = manifest["utterance_id"].tolist()
    files = {m: find_under(folder, "*.npy") for m, folder in folders.items()}
    for modality, found in files.items():
        refuse_some(
            sorted(set(found) - set(ids)),
            f"{folders[modality]}: no line in {table} for",
            "add the lines, or move the files away",
        )
    refuse_some(
        [u for u in ids if not any(u in found for found in files.values())],
        f"{table}: no file in {', '.join(f'{m}/' for m in folders)} for",
        "add the features, or remove the lines",
    )

    def feed(writer: FeatureStoreWriter) -> None:
        for utterance in ids:
            own = {m: found[utterance] for m, found in files.items() if utterance in found}
            writer.add(utterance, {m: read_npy(file, budget) for m, file in own.items()}, files=own)

    return SourceData(manifest, tuple(folders), feed)


def _modality_folders(source: Path, wanted: Sequence[str] | None) -> dict[str, Path]:
    if wanted is not None:
        folders = {modality: source / modality for modality in wanted}
    else:
        found = (f for f in source.iterdir() if f.is_dir() and not (f / "store.json").exists())
        folders = {folder.name: folder for folder in sorted(found, key=_rank) if any(folder.glob("*.npy"))}
    if not folders:
        raise InputError(
            f"{source}: neither features.npz nor sub-folders with .npy files",
            remedy="make one sub-folder per modality with <utterance_id>.npy in it",
        )
    for folder in folders.values():
        if not any(_npy_files(folder)):
            raise InputError(f"{folder}: no .npy files", remedy="name the sub-folders of the modalities")
    return folders


def _npy_files(folder: Path) -> Iterator[Path]:
    return folder.glob("*.npy") if folder.is_dir() else iter(())


def _rank(folder: Path) -> tuple[int, str]:
    known = folder.name in _CUSTOMARY_ORDER
    return (_CUSTOMARY_ORDER.index(folder.name) if known else len(_CUSTOMARY_ORDER), folder.name)


def _only_csv(source: Path) -> Path:
    if (source / "metadata.csv").is_file():
        return source / "metadata.csv"
    tables = sorted(source.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(
            f"{source}: {len(tables)} CSV files and no metadata.csv",
            remedy="write metadata.csv with a column utterance_id",
        )
    return tables[0]


def _recognise(source: Path) -> str:
    if (source / "features.npz").is_file():
        return "features.npz"
    folders = [f.name for f in source.iterdir() if f.is_dir() and any(f.glob("*.npy"))] if source.is_dir() else []
    return (
        f"folders {', '.join(sorted(folders))} with .npy files beside a CSV file"
        if folders and any(source.glob("*.csv"))
        else ""
    )


ARRAYS = Format(read_arrays, _recognise)
"""Plain NumPy arrays."""
