"""Streaming writer of feature stores: bounded memory, checked rows, all or nothing."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd

from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.data.packed import PackedArray, PackedWriter
from cmarr_lightning.data.store import (
    COUNTS,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    STORE_FILE,
    file_record,
    offsets_file,
    values_file,
)
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import hold, remove_abandoned

__all__ = ["FeatureStoreWriter"]

_MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # file names, and free of the "+" that joins a condition
_STORE_FILES = re.compile(rf"{re.escape(STORE_FILE)}|{re.escape(MANIFEST_FILE)}|.+\.(values|offsets)\.npy")


class FeatureStoreWriter:
    """Write a feature store, one utterance or one block of utterances at a time, in the order of its table.

    Everything goes to a folder beside the final one, renamed when the `with` block ends well. After
    an error or an interruption nothing new is there, and an earlier store is as it was. What a killed process left
    beside `out` is removed by the next one that writes there.

    Values that are NaN are kept and counted; an utterance whose values of a modality are *all* NaN lacks that
    modality. float16 is kept, float64 becomes float32.

    Args:
        out: The folder to write.
        manifest: The N utterances, see `validate_manifest`.
        modalities: The M names, in the order in which the store lists them.
        name: Name of the data.
        source: What the store is made from.
        synthetic: True = no real recordings.
        units: Per modality what the numbers are, free text.
        notes: What a reader should know about how the data came in, one sentence each.
        fingerprint: Identifies the unread source, so that a later import can tell that nothing changed.
        overwrite: Replace an existing store; the swap is the last thing that happens.

    Raises:
        InputError: `out` exists, or is not a store that may be replaced; a bad manifest or name.

    Examples:
        >>> import tempfile
        >>> from cmarr_lightning.data.store import FeatureStore
        >>> table = pd.DataFrame({"utterance_id": ["a", "b"], "label": ["happy", "sad"]})
        >>> out = Path(tempfile.mkdtemp()) / "store"
        >>> with FeatureStoreWriter(out, table, ("audio", "text"), name="mine", source="made up") as writer:
        ...     writer.add("a", {"audio": np.zeros((3, 2), "f4"), "text": np.ones(4, "f4")})
        ...     writer.add("b", {"text": np.ones(4, "f4")})
        >>> FeatureStore.open(out).observed().tolist()
        [[True, True], [False, True]]
    """

    def __init__(
        self,
        out: str | Path,
        manifest: pd.DataFrame,
        modalities: Sequence[str],
        *,
        name: str,
        source: str,
        synthetic: bool = False,
        units: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        fingerprint: str = "",
        overwrite: bool = False,
    ) -> None:
        self._out = Path(out).expanduser().resolve()
        self._overwrite = overwrite
        self._refuse_existing()
        _check_modalities(modalities)
        self._manifest = validate_manifest(manifest, origin=source)
        self._ids: list[str] = self._manifest["utterance_id"].tolist()
        self._about = {"name": name, "source": source, "synthetic": synthetic}
        self._import = {"notes": list(notes), "fingerprint": fingerprint}
        self._modalities = tuple(modalities)
        self._units = dict(units or {})
        self._rows = 0
        self._packed: dict[str, PackedWriter] = {}
        self._partial = self._sibling("partial")

    def __enter__(self) -> Self:
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            if not remove_abandoned(self._siblings("partial")) and self._out.exists():
                for earlier in self._siblings("earlier"):  # killed after the swap
                    shutil.rmtree(earlier, ignore_errors=True)
            self._partial.mkdir()
        except OSError as error:
            raise self._unwritable(error) from error
        self._held = hold(self._partial)
        self._packed = {m: PackedWriter(self._partial / values_file(m)) for m in self._modalities}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise self._unwritable(failure) from failure
        finally:
            for packed in self._packed.values():
                packed.close()
            shutil.rmtree(self._partial, ignore_errors=True)
            if self._held is not None:
                os.close(self._held)

    def add(
        self,
        utterance: str,
        features: Mapping[str, np.ndarray],
        *,
        files: Mapping[str, str | Path] | None = None,
    ) -> None:
        """Add the next utterance of the manifest.

        Args:
            utterance: Its id, which must be the next one of the manifest.
            features: Per modality (T, D) frames or a (D,) vector, floats; a modality left out is absent.
            files: Per modality the file it came from, for messages.

        Raises:
            InputError: No modality, T = 0, Inf, no floats, or another dim, dtype or kind than before.
            ValueError: Not the next utterance, or a modality that was not announced.
        """
        if self._rows == len(self._ids) or utterance != self._ids[self._rows]:
            raise ValueError(f"{utterance!r} is not the next utterance of the manifest")
        origins = {m: f", {m}" + (f" ({files[m]})" if files and m in files else "") for m in features}
        arrays = {m: PackedArray.of_one(a, f"utterance {utterance!r}{origins[m]}") for m, a in features.items()}
        self._append(arrays, 1, origins)

    def add_block(self, features: Mapping[str, np.ndarray], *, lengths: Mapping[str, np.ndarray] | None = None) -> None:
        """Add the next n utterances of the manifest at once.

        Args:
            features: Per modality (n, D) vectors, (n, T, D) sequences of one length, or packed (F, D) frames
                where `lengths` has this modality. Floats.
            lengths: Per packed modality the n frame counts, 0 = absent; their sum is F.

        Raises:
            InputError: As in `add`; the message names the utterance.
            ValueError: Arrays that disagree on n, or more rows than the manifest has.
        """
        arrays = {m: PackedArray.of_many(a, (lengths or {}).get(m), m) for m, a in features.items()}
        sizes = {len(array.lengths) for array in arrays.values()}
        left = len(self._ids) - self._rows
        if len(sizes) != 1 or max(sizes) > left:
            raise ValueError(f"blocks of {sorted(sizes)} utterances, {left} are left")
        self._append(arrays, sizes.pop(), {m: f", {m}" for m in arrays})

    def _append(self, arrays: Mapping[str, PackedArray], n: int, origins: Mapping[str, str]) -> None:
        if unknown := sorted(set(arrays) - set(self._modalities)):
            raise ValueError(f"modalities {unknown} were not announced")
        ids = self._ids[self._rows : self._rows + n]
        observed = np.zeros(n, dtype=bool)
        for modality, packed in self._packed.items():
            array = arrays.get(modality, _absent(n))
            origin = origins.get(modality, "")
            try:
                observed |= packed.append(array, partial(_place, ids, origin))
            except OSError as error:
                raise self._unwritable(error) from error
        if not observed.all():
            raise InputError(
                f"{self._about['source']}: utterance {ids[int(np.argmin(observed))]!r} has none of the "
                f"modalities {', '.join(self._modalities)}",
                remedy="leave the utterance out of the table, or add a modality that it has",
            )
        self._rows += n

    def _finish(self) -> None:
        if any(packed.rows != len(self._ids) for packed in self._packed.values()):
            raise ValueError(f"{self._rows} of {len(self._ids)} utterances were added")
        described = {m: self._describe(m, packed) for m, packed in self._packed.items()}
        self._manifest.to_parquet(self._partial / MANIFEST_FILE, index=False)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            **self._about,
            **self._import,
            "counts": {
                "utterances": len(self._ids),
                **{key: {m: getattr(packed, key) for m, packed in self._packed.items()} for key in COUNTS},
            },
            "modalities": described,
            "manifest": {MANIFEST_FILE: file_record(self._partial / MANIFEST_FILE)},
        }
        # Written last: a folder without it does not open.
        (self._partial / STORE_FILE).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        self._publish()

    def _describe(self, modality: str, packed: PackedWriter) -> dict[str, Any]:
        if not packed.observed:
            raise InputError(
                f"{self._about['source']}: no utterance has the modality {modality}", remedy="leave it out"
            )
        np.save(self._partial / offsets_file(modality), packed.finish())
        files = (values_file(modality), offsets_file(modality))
        return {
            "dim": packed.dim,
            "dtype": packed.dtype.name,
            "kind": packed.kind,
            "unit": self._units.get(modality, ""),
            "files": {file: file_record(self._partial / file) for file in files},
        }

    def _publish(self) -> None:
        if not (self._overwrite and self._out.exists()):
            self._partial.rename(self._out)
            return
        earlier = self._sibling("earlier")
        try:
            self._out.rename(earlier)
            self._partial.rename(self._out)
        except BaseException:
            if earlier.exists() and not self._out.exists():
                earlier.rename(self._out)
            raise
        shutil.rmtree(earlier, ignore_errors=True)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self._out}: cannot be written ({error.strerror})",
            remedy="free some space, or choose another folder",
        )

    def _sibling(self, what: str) -> Path:
        return self._out.with_name(f"{self._out.name}.{what}-{secrets.token_hex(4)}")

    def _siblings(self, what: str) -> list[Path]:
        name = re.compile(rf"{re.escape(self._out.name)}\.{what}-[0-9a-f]{{8}}")
        return sorted(entry for entry in self._out.parent.iterdir() if name.fullmatch(entry.name))

    def _refuse_existing(self) -> None:
        if not self._out.exists():
            return
        if not self._overwrite:
            raise InputError(f"{self._out}: exists already", remedy="choose another folder or pass --overwrite")
        foreign = (
            [self._out.name]
            if not self._out.is_dir()
            else [entry.name for entry in self._out.iterdir() if not _STORE_FILES.fullmatch(entry.name)]
        )
        if foreign:
            raise InputError(
                f"{self._out}: holds more than a feature store ({sorted(foreign)[0]}), so it is not replaced",
                remedy="choose another folder",
            )


def _place(ids: Sequence[str], origin: str, row: int) -> str:
    return f"utterance {ids[row]!r}{origin}"


def _absent(n: int) -> PackedArray:
    return PackedArray(np.empty((0, 0)), np.zeros(n, dtype=np.int64), "")


def _check_modalities(modalities: Sequence[str]) -> None:
    if not modalities:
        raise InputError("no modality to write", remedy="name at least one")
    for name in modalities:
        if not _MODALITY.fullmatch(name):
            raise InputError(f"modality {name!r}: not a usable name", remedy="use letters, digits, '_' and '-' only")
    # Lower case, because some file systems do not tell the two apart.
    if len({name.lower() for name in modalities}) < len(modalities):
        raise InputError(f"modalities {', '.join(modalities)}: a name stands twice", remedy="rename one")
