"""Import features of any known format: recognise, read, audit, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmarr_lightning.data.importers.formats import FORMATS
from cmarr_lightning.data.importers.guards import DEFAULT_MAX_BYTES
from cmarr_lightning.data.importers.source import ImportOptions, SourceData
from cmarr_lightning.data.official_folds import audit_official_folds, repair_official_folds
from cmarr_lightning.data.store import STORE_FILE, FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["Imported", "import_arrays", "import_features", "recognise"]

_ARRAYS = (
    "; for features of your own, arrays: a folder with metadata.csv (columns utterance_id, label, session, speaker) and"
    " a folder per modality with <utterance_id>.npy, or features.npz"
)
_READER_VERSION = 1  # raised when the same source gives another store than before


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        store: The store.
        format: Name of the format.
        reason: Why the source was taken for this format, "" when the user named it.
        unchanged: The store was there already and the source is as it was: nothing was done.
    """

    store: FeatureStore
    format: str
    reason: str
    unchanged: bool


def import_features(
    source: str | Path,
    out: str | Path,
    *,
    format: str = "auto",
    modalities: Sequence[str] | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    repair_folds: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
    overwrite: bool = False,
) -> Imported:
    """Make a feature store of features in any known format.

    Nothing in the source is run, and a store is written whole or not at all. When a store of the same source
    with the same settings is there already, nothing is done.

    Args:
        source: The file or folder.
        out: The store to write.
        format: A key of `FORMATS`, or "auto" = by the look of the source.
        modalities: What to take, in this order: names, or `name=key` where a source has several candidates.
        name: Name of the data; the name of the source by default.
        classes: Names of the class numbers 0, 1, ... where the source has none.
        repair_folds: Rebuild the official folds: leave one speaker out.
        max_bytes: How much the arrays may hold, counted before they are read.
        overwrite: Replace an existing store.

    Returns:
        The new store, and what was done.

    Raises:
        InputError: The source cannot be used; the message names file, utterance or key, and the remedy.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies inside the source {source}", remedy="write the store somewhere else")
    reason = ""
    if format == "auto":
        format, reason = recognise(source)
    options = ImportOptions(
        modalities=None if modalities is None else tuple(modalities),
        classes=None if classes is None else tuple(classes),
        repair_folds=repair_folds,
        max_bytes=max_bytes,
    )
    title = source.resolve().name if name is None else name
    fingerprint = _fingerprint(FORMATS[format].roots(source), format, title, replace(options, max_bytes=0))
    if (earlier := _earlier(out)) is not None and earlier.fingerprint == fingerprint:
        return Imported(earlier, format, reason, unchanged=True)
    data = _with_fair_folds(FORMATS[format].read(source, options), options)
    with FeatureStoreWriter(
        out,
        data.manifest,
        data.modalities,
        name=title,
        source=str(source),
        notes=data.notes,
        fingerprint=fingerprint,
        overwrite=overwrite,
    ) as writer:
        data.feed(writer)
    return Imported(FeatureStore.open(out), format, reason, unchanged=False)


def import_arrays(
    source: str | Path,
    out: str | Path,
    *,
    modalities: Sequence[str] | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> FeatureStore:
    """Make a feature store of a folder of NumPy arrays, see `import_features`."""
    done = import_features(source, out, format="arrays", modalities=modalities, name=name, overwrite=overwrite)
    return done.store


def recognise(source: Path) -> tuple[str, str]:
    """Find the format of a source.

    Returns:
        Its name and why it looks like that.

    Raises:
        InputError: Nothing there, or it looks like none of the formats or like several.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder", remedy="check the path")
    if (source / STORE_FILE).is_file():
        raise InputError(f"{source}: is a feature store already", remedy="use it as it is")
    reasons = {name: reason for name, form in FORMATS.items() if (reason := form.recognise(source))}
    if len(reasons) != 1:
        seen = "; ".join(f"{name} because of {reason}" for name, reason in reasons.items())
        raise InputError(
            f"{source}: looks like {seen or 'none of the known formats'}",
            remedy=f"name the format before the source: {', '.join(reasons or FORMATS)}{'' if reasons else _ARRAYS}",
        )
    return next(iter(reasons.items()))


def _with_fair_folds(data: SourceData, options: ImportOptions) -> SourceData:
    """Note what is wrong with the official folds, or rebuild them."""
    faults = audit_official_folds(data.manifest)
    if not options.repair_folds:
        notes = [f"official folds: {fault}" for fault in faults]
        if notes:
            notes.append("rebuild the folds with --repair-folds, or use the protocol session or speaker")
        return replace(data, notes=(*data.notes, *notes))
    notes = [f"official folds, before the repair: {fault}" for fault in faults]
    notes.append("official folds were rebuilt: each leaves one speaker out, the other one of the session validates")
    return replace(data, manifest=repair_official_folds(data.manifest), notes=(*data.notes, *notes))


def _earlier(out: Path) -> FeatureStore | None:
    try:
        return FeatureStore.open(out) if out.exists() else None
    except InputError:
        return None  # the writer says what is in the way


def _fingerprint(roots: Sequence[Path], *settings: object) -> str:
    """Sum up names, sizes and times of all source files and the settings, without reading 3 GB."""
    files = sorted({file.resolve() for root in roots for file in (root.rglob("*") if root.is_dir() else [root])})
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    lines = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = json.dumps([_READER_VERSION, [repr(setting) for setting in settings], lines])
    return hashlib.sha256(text.encode()).hexdigest()
