"""The targets of MMIN folders: labels of one fold per folder, in either of two encodings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmarr_lightning.data.importers.guards import SizeBudget, read_npy
from cmarr_lightning.errors import InputError

__all__ = ["Targets", "read_targets"]

_PARTS = {"trn": "train", "val": "val", "tst": "test"}
_MEND = "download the target folder again, or mend the file"


@dataclass(frozen=True)
class Targets:
    """Labels and official folds.

    Attributes:
        ids: The N utterances of all folds, sorted.
        labels: Their class numbers.
        counts: Utterances per class number.
        splits: split_<fold> -> N times train, val, test, or "" where the fold has the utterance nowhere.
        notes: What the user should know.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    counts: tuple[int, ...]
    splits: Mapping[str, list[str]]
    notes: tuple[str, ...]


def read_targets(target: Path, budget: SizeBudget, *, lenient: bool = False) -> Targets:
    """Read target/<fold>/{trn,val,tst}_{label,int2name}.npy.

    Labels are one-hot rows (N, C) or class numbers (N,), ids a column of bytes (N, 1) or text (N,).

    Args:
        target: The folder with one folder per fold, named 1, 2, ...
        budget: What the arrays may claim.
        lenient: Pass over utterances in two parts of a fold, because the folds will be rebuilt.

    Raises:
        InputError: A missing or damaged file, labels that are no classes, or an utterance that has two
            labels or stands in two parts of a fold.
    """
    folds = sorted((f for f in _folders(target) if f.name.isdecimal()), key=lambda folder: int(folder.name))
    if not folds:
        raise InputError(
            f"{target}: no folders 1, 2, ... with trn_label.npy", remedy="name the folder that holds A, V, L and target"
        )
    label_of: dict[str, int] = {}
    part_of: dict[str, dict[str, str]] = {}
    width = 0
    notes: list[str] = []
    for folder in folds:
        parts = part_of.setdefault(f"split_{folder.name}", {})
        for prefix, part in _PARTS.items():
            ids, labels, classes = _read_part(folder, prefix, budget)
            width = max(width, classes)
            for name, label in zip(ids, labels, strict=True):
                where = f"{folder / f'{prefix}_int2name.npy'}, utterance {name!r}"
                if label_of.setdefault(name, label) != label:
                    raise InputError(f"{where}: class {label}, but {label_of[name]} elsewhere", remedy=_MEND)
                if parts.setdefault(name, part) != part:
                    _refuse_or_note(f"{where}: stands in {parts[name]} already", notes, lenient=lenient)
    names = tuple(sorted(label_of))
    labels_in_order = tuple(label_of[name] for name in names)
    counts = np.bincount(labels_in_order, minlength=width).tolist()
    splits = {fold: [parts.get(name, "") for name in names] for fold, parts in part_of.items()}
    return Targets(names, labels_in_order, tuple(counts), splits, tuple(notes[:3]))


def _folders(target: Path) -> list[Path]:
    return [entry for entry in target.iterdir() if entry.is_dir()] if target.is_dir() else []


def _refuse_or_note(problem: str, notes: list[str], *, lenient: bool) -> None:
    if not lenient:
        raise InputError(problem, remedy="mend the target folder, or rebuild the folds with --repair-folds")
    notes.append(problem)


def _read_part(folder: Path, prefix: str, budget: SizeBudget) -> tuple[list[str], list[int], int]:
    """Read one part of a fold: ids, class numbers, and the number of classes as far as it shows."""
    name_file, label_file = folder / f"{prefix}_int2name.npy", folder / f"{prefix}_label.npy"
    ids = _ids(name_file, read_npy(name_file, budget))
    labels = read_npy(label_file, budget)
    if len(labels) != len(ids):
        raise InputError(f"{label_file}: {len(labels)} labels, but {len(ids)} ids in {name_file.name}", remedy=_MEND)
    if repeated := {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else set():
        raise InputError(f"{name_file}: utterance {min(repeated)!r} stands twice", remedy=_MEND)
    return ids, *_class_numbers(label_file, labels, ids)


def _ids(path: Path, array: np.ndarray) -> list[str]:
    if array.dtype.kind not in "SU" or array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise InputError(f"{path}: {array.dtype} {array.shape}, not one id per utterance", remedy=_MEND)
    try:
        flat = array.reshape(-1)
        ids: list[str] = (np.char.decode(flat, "utf-8") if array.dtype.kind == "S" else flat).tolist()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: an id is not UTF-8 ({error.reason})", remedy=_MEND) from error
    return ids


def _class_numbers(path: Path, labels: np.ndarray, ids: list[str]) -> tuple[list[int], int]:
    if labels.dtype.kind not in "iufb" or labels.ndim not in (1, 2):
        raise InputError(f"{path}: {labels.dtype} {labels.shape}, neither one-hot rows nor class numbers", remedy=_MEND)
    if labels.ndim == 2:
        wrong = (np.sort(labels, axis=1)[:, :-1] != 0).any(axis=1) | (labels.max(axis=1, initial=0) != 1)
        numbers, classes = labels.argmax(axis=1), labels.shape[1]
    else:
        numbers = labels.astype(np.int64)
        wrong = (numbers != labels) | (numbers < 0) | (numbers > 999)
        classes = int(numbers[~wrong].max(initial=-1)) + 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{path}, utterance {ids[row]!r}: label {labels[row].tolist()} is no class",
            remedy="mend the file: one 1 and else 0 in a row, or one number from 0 per utterance",
        )
    return numbers.tolist(), classes
