"""Import the pickles of MMSA: aligned_50.pkl and unaligned_50.pkl of MOSI, MOSEI and SIMS."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmarr_lightning.data.importers.class_labels import sentiment_columns
from cmarr_lightning.data.importers.guards import UNREADABLE, SizeBudget
from cmarr_lightning.data.importers.safe_pickle import load_pickle
from cmarr_lightning.data.importers.source import Format, ImportOptions, SourceData, chosen_keys
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["MMSA", "read_mmsa"]

_PARTS = {"train": "train", "valid": "val", "test": "test"}
_KEYS = {"audio": "audio", "video": "vision", "text": "text"}
_MEND = "download the file again, or name another format"
_BLOCK = 512  # utterances


def read_mmsa(source: Path, options: ImportOptions) -> SourceData:
    """Read a pickle with the parts train, valid and test.

    Each part holds `id`, `audio`, `vision` and `text`, (N, T, D) or (N, D), `regression_labels`, and may hold
    `raw_text`, `annotations`, `audio_lengths` and `vision_lengths`. Frames beyond a recorded length are
    padding and left out; -inf, which old feature extractors wrote, becomes 0.

    Args:
        source: The pickle.
        options: `modalities` of audio, video (`vision`) and text.

    Returns:
        The data; the manifest has the columns split, score and, binarised, label.

    Raises:
        InputError: Another layout, or keys that disagree on N.
    """
    content = load_pickle(source, SizeBudget(options.max_bytes))
    if not isinstance(content, Mapping) or not set(_PARTS) <= set(content):
        raise InputError(f"{source}: no keys train, valid and test", remedy=_MEND)
    parts = {part: _Part(source, key, content[key]) for key, part in _PARTS.items()}
    tables = [part.table().assign(split=name) for name, part in parts.items()]
    manifest = validate_manifest(pd.concat(tables, ignore_index=True), origin=str(source))
    found = {m: [key] for m, key in _KEYS.items() if all(key in part.fields for part in parts.values())}
    chosen = chosen_keys(options, found, source)
    notes = ["scores are kept in the column score and binarised in label; 0 is outside the two-class task"]
    arrays: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {}
    for modality, key in chosen.items():
        arrays[modality] = [part.frames(key) for part in parts.values()]
        notes += _mended(modality, [array for array, _ in arrays[modality]])
    uses = {m: all(lengths is not None for _, lengths in some) for m, some in arrays.items()}
    notes += [f"{m}: padding beyond the recorded lengths is left out" for m, used in uses.items() if used]

    def feed(writer: FeatureStoreWriter) -> None:
        for number, part in enumerate(parts.values()):
            for start in range(0, len(part.ids), _BLOCK):
                rows = slice(start, start + _BLOCK)
                block, lengths = {}, {}
                for modality, some in arrays.items():
                    array, counts = some[number]
                    block[modality] = _without_minus_infinity(array[rows])
                    if uses[modality] and counts is not None:
                        lengths[modality] = counts[rows]
                        kept = np.arange(array.shape[1]) < counts[rows, None]
                        block[modality] = block[modality][kept]
                writer.add_block(block, lengths=lengths)

    return SourceData(manifest, tuple(chosen), feed, tuple(notes))


class _Part:
    """One part of the corpus."""

    def __init__(self, source: Path, key: str, fields: Any) -> None:
        self._where = f"{source}, {key}"
        if not isinstance(fields, Mapping) or "id" not in fields:
            raise InputError(f"{self._where}: no key id", remedy=_MEND)
        self.fields = fields
        self.ids = [str(name) for name in self._entries("id")]

    def table(self) -> pd.DataFrame:
        columns: dict[str, Any] = {"utterance_id": self.ids}
        columns["dialogue_id"] = [name.rpartition("$_$")[0] for name in self.ids]
        scores = self._column("regression_labels")
        if scores is None:
            raise InputError(f"{self._where}: no key regression_labels", remedy=_MEND)
        try:
            columns |= sentiment_columns([float(score) for score in scores])
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._where}: regression_labels hold no numbers ({error})", remedy=_MEND) from error
        if not np.isfinite(columns["score"]).all():
            row = int(np.argmin(np.isfinite(columns["score"])))
            raise InputError(f"{self._where}, utterance {self.ids[row]!r}: label is not a number", remedy=_MEND)
        for key, column in (("annotations", "annotation"), ("raw_text", "transcript")):
            if (values := self._column(key)) is not None:
                columns[column] = [str(value) for value in values]
        for key in sorted(k for k in self.fields if str(k).startswith("regression_labels_")):
            columns[f"score_{key.rpartition('_')[2].lower()}"] = [float(v) for v in self._column(key) or ()]
        return pd.DataFrame(columns)

    def frames(self, key: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Get (N, T, D) frames or (N, D) vectors, and how many of the T frames are no padding, where it is known."""
        field = self.fields[key]
        array = np.asarray(field) if isinstance(field, np.ndarray) else np.empty(0)
        if array.dtype.kind != "f" or array.ndim not in (2, 3) or len(array) != len(self.ids) or not array.size:
            raise InputError(
                f"{self._where}, key {key}: {array.dtype} {array.shape}, not float ({len(self.ids)}, T, D)",
                remedy=_MEND,
            )
        recorded = self._column(f"{key}_lengths")
        if recorded is None or array.ndim == 2:
            return array, None
        if not all(isinstance(length, int) and 0 <= length <= array.shape[1] for length in recorded):
            raise InputError(f"{self._where}, key {key}_lengths: not numbers of frames up to T", remedy=_MEND)
        lengths = np.array(recorded, dtype=np.int64)
        padding = np.arange(array.shape[1]) >= lengths[:, None]
        # Values beyond the lengths mean that the lengths count something else: then all frames stay.
        return array, lengths if not (array.any(axis=2) & padding).any() else None

    def _column(self, key: str) -> list[Any] | None:
        if key not in self.fields:
            return None
        values = self._entries(key)
        if len(values) != len(self.ids):
            raise InputError(f"{self._where}, key {key}: {len(values)} entries, but {len(self.ids)} ids", remedy=_MEND)
        return values

    def _entries(self, key: str) -> list[Any]:
        field = self.fields[key]
        if not isinstance(field, np.ndarray | list | tuple):
            raise InputError(f"{self._where}, key {key}: {type(field).__name__}, not a list", remedy=_MEND)
        return list(np.asarray(field).reshape(-1).tolist() if isinstance(field, np.ndarray) else field)


def _without_minus_infinity(block: np.ndarray) -> np.ndarray:
    return np.where(np.isneginf(block), block.dtype.type(0), block) if np.isneginf(block).any() else block


def _mended(modality: str, arrays: list[np.ndarray]) -> list[str]:
    cells = sum(int(np.isneginf(array).sum()) for array in arrays)
    return [f"{modality}: {cells} values -inf were set to 0"] if cells else []


def _recognise(source: Path) -> str:
    """Look for the keys of the outermost dict: nothing is built."""
    if source.suffix not in (".pkl", ".pickle") or not source.is_file():
        return ""
    if source.stem.startswith(("aligned_", "unaligned_")):
        return f"its name {source.name}"
    try:
        with source.open("rb") as file:
            words = {argument for _, argument, _ in pickletools.genops(file) if isinstance(argument, str)}
    except UNREADABLE:
        return ""
    return "a pickle with train, valid, test, id and vision" if {*_PARTS, "id", "vision"} <= words else ""


MMSA = Format(read_mmsa, _recognise)
"""MOSI, MOSEI and SIMS as MMSA distributes them."""
