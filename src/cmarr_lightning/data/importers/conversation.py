"""Import the conversation pickles of MMGCN, COGMEN and conv-emotion."""

from __future__ import annotations

import pickletools
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cmarr_lightning.data.importers.dialogues import Dialogues, label_columns, labels_and_speakers
from cmarr_lightning.data.importers.guards import UNREADABLE, SizeBudget
from cmarr_lightning.data.importers.safe_pickle import load_pickle
from cmarr_lightning.data.importers.source import Format, ImportOptions, SourceData, chosen_keys
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["CONVERSATION", "read_conversation"]

_FIELDS = {"text": 3, "audio": 4, "video": 5}
_MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_BLOCK = 1024  # utterances


def read_conversation(source: Path, options: ImportOptions) -> SourceData:
    """Read a pickle of nine fields (IEMOCAP) or ten (MELD, with a map of labels at the end).

    The fields: utterance ids, speakers, labels, text, audio and visual vectors, sentences, all by dialogue;
    training and test dialogues. Files in which labels come before speakers, as GCNet writes them, are told
    apart by what the fields hold.

    Args:
        source: The pickle.
        options: `classes` name the class numbers where they are not those of IEMOCAP or MELD.

    Returns:
        The data; the manifest has a column split with train and test.

    Raises:
        InputError: Another layout, or fields that disagree.
    """
    fields = load_pickle(source, SizeBudget(options.max_bytes))
    if not _is_conversation(fields):
        raise InputError(
            f"{source}: not the nine or ten fields of a conversation pickle ({_shape(fields)})",
            remedy="name another format; COSMIC's and COGMEN's preprocessed files hold no such fields",
        )
    dialogues = Dialogues(source, fields[0])
    labels, speakers, swapped = labels_and_speakers(
        dialogues.flat(fields[1], "second field"), dialogues.flat(fields[2], "third field"), source
    )
    known = _names(fields[9]) if len(fields) == 10 else None
    columns, notes = label_columns(dialogues, labels, speakers, options, source, known=known)
    columns["split"] = dialogues.parts(train=fields[7], test=fields[8])
    columns["transcript"] = [str(sentence) for sentence in dialogues.flat(fields[6], "sentences")]
    manifest = validate_manifest(pd.DataFrame({"utterance_id": dialogues.ids, **columns}), origin=str(source))
    found = {m: [m] for m in ("audio", "video", "text")}
    chosen = tuple(chosen_keys(options, found, source))
    arrays = {m: dialogues.vectors(fields[_FIELDS[m]], f"{m} vectors") for m in chosen}
    if swapped:
        notes.append("labels stand before speakers, as GCNet writes them: read in that order")
    notes.append("no validation dialogues: use the protocol session or speaker, or write val into the column split")

    def feed(writer: FeatureStoreWriter) -> None:
        for start in range(0, len(manifest), _BLOCK):
            writer.add_block({m: array[start : start + _BLOCK] for m, array in arrays.items()})

    return SourceData(manifest, chosen, feed, tuple(notes))


def _is_conversation(fields: Any) -> bool:
    if not isinstance(fields, list | tuple) or len(fields) not in (9, 10):
        return False
    return all(isinstance(f, Mapping) for f in fields[:7]) and not any(isinstance(f, Mapping) for f in fields[7:9])


def _names(label_map: Any) -> tuple[str, ...]:
    """Read the names of the classes from MELD's last field; its usual order where it has none."""
    if isinstance(label_map, Mapping) and label_map:
        pairs = [(k, v) if isinstance(v, str) else (v, k) for k, v in label_map.items()]
        names = {number: name for number, name in pairs if isinstance(name, str) and isinstance(number, int)}
        if len(names) == len(label_map) and sorted(names) == list(range(len(names))):
            return tuple(names[number] for number in sorted(names))
    return _MELD


def _shape(fields: Any) -> str:
    size = f" of {len(fields)}" if hasattr(fields, "__len__") else ""
    return f"{type(fields).__name__}{size}"


def _recognise(source: Path) -> str:
    """Look at a pickle's outermost container: nothing is built."""
    if source.suffix not in (".pkl", ".pickle") or ("_features_raw_" in source.name and "way" in source.name):
        return ""
    try:
        with source.open("rb") as file:
            ends = list(deque((operation.name for operation, _, _ in pickletools.genops(file)), maxlen=12))
    except UNREADABLE:
        return ""
    return "a pickle of several fields" if _closes_a_sequence(ends) else ""


def _closes_a_sequence(operations: list[str]) -> bool:
    left = [name for name in operations if not name.endswith(("PUT", "MEMOIZE", "STOP"))]
    return bool(left) and left[-1] in ("TUPLE", "APPENDS", "APPEND", "LIST")


CONVERSATION = Format(read_conversation, _recognise)
"""IEMOCAP and MELD pickles of MMGCN, COGMEN and conv-emotion."""
