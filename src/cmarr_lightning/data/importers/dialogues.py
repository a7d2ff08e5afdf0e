"""Fields of conversation pickles: dicts from a dialogue to a list with one entry per utterance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmarr_lightning.data.columns import name_some
from cmarr_lightning.data.importers.class_labels import (
    EMOTIONS,
    IEMOCAP_DIALOGUE_ORDER,
    name_numbers,
    order_classes,
    sentiment_columns,
)
from cmarr_lightning.data.importers.corpus_ids import describe_ids
from cmarr_lightning.data.importers.source import ImportOptions
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.errors import InputError

__all__ = ["Dialogues", "label_columns", "labels_and_speakers"]

_MEND = "download the file again, or name another format"
_LARGEST = 1000


class Dialogues:
    """The utterances of a conversation pickle in the order of its dialogues.

    Args:
        path: The pickle, for messages.
        ids: Its field of utterance ids.

    Attributes:
        ids: N ids; where those of the file are numbers or repeat themselves, dialogue and position.
        dialogue_ids: The dialogue of each, as text.

    Raises:
        InputError: Not a dict of lists, or an id that is unsafe as the name of a file.
    """

    def __init__(self, path: Path, ids: object) -> None:
        self._path = path
        self._sizes = {key: len(entries) for key, entries in self._lists(ids, "utterance ids").items()}
        flat = self.flat(ids, "utterance ids")
        self.dialogue_ids = [str(key) for key, size in self._sizes.items() for _ in range(size)]
        self.ids: list[str] = flat
        if not all(isinstance(name, str) for name in flat) or len(set(flat)) < len(flat):
            self.ids = [f"{key}_{i}" for key, size in self._sizes.items() for i in range(size)]
        validate_manifest(pd.DataFrame({"utterance_id": self.ids}), origin=str(path))

    def flat(self, field: object, what: str) -> list[Any]:
        """Put the entries of all dialogues end to end.

        Raises:
            InputError: Other dialogues or lengths than those of the ids.
        """
        lists = self._lists(field, what)
        if set(lists) != set(self._sizes):
            odd = name_some(set(lists) ^ set(self._sizes))
            raise InputError(f"{self._path}: {what} and ids differ in dialogues {odd}", remedy=_MEND)
        for key, size in self._sizes.items():
            if len(lists[key]) != size:
                raise InputError(
                    f"{self._path}, dialogue {key!r}: {len(lists[key])} {what}, but {size} ids", remedy=_MEND
                )
        return [entry for key in self._sizes for entry in lists[key]]

    def parts(self, **parts: Collection[Any]) -> list[str]:
        """Name the part of every utterance by the dialogues of each part; "" = in none.

        Raises:
            InputError: A part is not a collection, names an unknown dialogue or one of another part.
        """
        part_of: dict[Any, str] = {}
        for part, members in parts.items():
            if not isinstance(members, set | frozenset) and not _is_list(members):
                raise InputError(f"{self._path}: the {part} part is a {type(members).__name__}", remedy=_MEND)
            for key in members:
                known = isinstance(key, str | int | np.generic) and key in self._sizes
                if not known or part_of.setdefault(key, part) != part:
                    fault = f"also in {part_of[key]}" if known else "unknown"
                    raise InputError(f"{self._path}: dialogue {key!r} of the {part} part is {fault}", remedy=_MEND)
        return [part_of.get(key, "") for key, size in self._sizes.items() for _ in range(size)]

    def vectors(self, field: object, what: str) -> np.ndarray:
        """Stack one feature vector per utterance: (N, D) floats.

        Raises:
            InputError: An entry that is no vector of numbers or has another width, with its utterance.
        """
        entries = self.flat(field, what)
        rows = [_vector(entry) for entry in entries]
        for utterance, entry, row in zip(self.ids, entries, rows, strict=True):
            if row.ndim != 1 or row.dtype.kind not in "fiu" or row.shape != rows[0].shape or not row.size:
                found = f"{row.dtype} {row.shape}" if isinstance(entry, np.ndarray) else f"a {type(entry).__name__}"
                raise InputError(
                    f"{self._path}, utterance {utterance!r}, {what}: {found}, not a vector of {rows[0].size} floats",
                    remedy=_MEND,
                )
        stacked = np.stack(rows)
        return stacked if stacked.dtype.kind == "f" else stacked.astype(np.float32)

    def _lists(self, field: object, what: str) -> Mapping[Any, Sequence[Any]]:
        if not isinstance(field, Mapping) or not field or not all(map(_is_list, field.values())):
            raise InputError(f"{self._path}: the {what} are not lists by dialogue", remedy=_MEND)
        return field


def labels_and_speakers(first: list[Any], second: list[Any], path: Path) -> tuple[list[Any], list[Any], bool]:
    """Tell labels from speakers, whose order differs between projects: labels are numbers.

    Returns:
        Labels, speakers, and whether the labels came first.

    Raises:
        InputError: Both or neither are numbers.
    """
    numeric = [all(_is_number(x) for x in field) for field in (first, second)]
    if numeric[0] == numeric[1]:
        raise InputError(f"{path}: labels cannot be told from speakers in the second and third field", remedy=_MEND)
    return (first, second, True) if numeric[0] else (second, first, False)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _vector(entry: Any) -> np.ndarray:
    """Take an array as it is and a list of numbers as floats; an empty array stands for anything else."""
    if isinstance(entry, np.ndarray):
        return np.asarray(entry)
    plain = isinstance(entry, list | tuple) and all(_is_number(number) for number in entry)
    return np.array(entry if plain else (), dtype=np.float64)


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return not value.ndim and value.dtype.kind in "iuf"
    return isinstance(value, int | float | np.integer | np.floating)


def label_columns(
    dialogues: Dialogues,
    labels: list[Any],
    speakers: list[Any],
    options: ImportOptions,
    path: Path,
    *,
    known: Sequence[str] | None = None,
) -> tuple[dict[str, list[Any]], list[str]]:
    """Make the columns of the manifest from labels, speakers and ids.

    Args:
        dialogues: The utterances.
        labels: Class numbers, or scores from negative to positive.
        speakers: "F" or "M", one-hot rows of who speaks, or "".
        options: `classes` name the numbers.
        path: The pickle, for messages.
        known: Names that the file itself gives to its class numbers.

    Raises:
        InputError: Numbers without names, or labels that are none.
    """
    corpus, described = describe_ids(dialogues.ids)
    columns: dict[str, list[Any]] = {"dialogue_id": dialogues.dialogue_ids, **described}
    if not described:
        columns |= _speaker_columns(speakers, path)
    for utterance, label in zip(dialogues.ids, labels, strict=True):
        if not -_LARGEST < label < _LARGEST:  # NaN too
            raise InputError(
                f"{path}, utterance {utterance!r}: label {label!r} is neither a class number nor a score", remedy=_MEND
            )
    if any(float(label) != int(label) or label < 0 for label in labels):
        notes = ["scores are kept in the column score and binarised in label; 0 is outside the two-class task"]
        return columns | sentiment_columns(labels), notes
    classes = options.classes or known
    if classes is None and corpus == "iemocap":
        classes = IEMOCAP_DIALOGUE_ORDER[: 4 if max(labels) < 4 else 6]
    if classes is None:
        counts = np.bincount(np.asarray(labels, dtype=np.int64)).tolist()
        classes, _ = order_classes(counts, corpus, None, path)
    names = name_numbers(labels, classes, dialogues.ids, path)
    notes = [f"classes {', '.join(f'{number} {name}' for number, name in enumerate(classes))}"]
    if corpus == "iemocap" and len(classes) == 4:
        counts = [names.count(name) for name in classes]
        how = "as given" if options.classes else "the order of GCNet and MMGCN"
        notes = [order_classes(counts, corpus, classes, path, how=how)[1]]
    if corpus == "iemocap" and len(classes) == 6:
        columns["emotion"] = [EMOTIONS.get(name, name) for name in names]
    return columns | {"label": names}, notes


def _speaker_columns(speakers: list[Any], path: Path) -> dict[str, list[str]]:
    """Read who speaks; names of characters that come back in every part are no speakers to leave out."""
    if all(isinstance(speaker, str) for speaker in speakers):
        return {"gender": [speaker if speaker in ("F", "M") else "" for speaker in speakers]}
    rows = [_vector(speaker) for speaker in speakers]
    if any(row.ndim != 1 or not row.size for row in rows):
        raise InputError(f"{path}: speakers are neither text nor one-hot rows", remedy=_MEND)
    return {"character": [str(int(np.argmax(row))) for row in rows]}
