"""What an importer is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cmarr_lightning.data.importers.guards import DEFAULT_MAX_BYTES
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["Format", "ImportOptions", "SourceData", "chosen_keys"]


@dataclass(frozen=True)
class ImportOptions:
    """What a user can ask of every importer.

    Attributes:
        modalities: What to take, in this order: a name, or `name=key` where the key says which part of the
            source it is (a file, a folder, an array). None = all.
        classes: Names of the class numbers 0, 1, ... where the source has none.
        repair_folds: Rebuild the official folds: leave one speaker out.
        max_bytes: How much the arrays may hold.
    """

    modalities: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    repair_folds: bool = False
    max_bytes: int = DEFAULT_MAX_BYTES


@dataclass(frozen=True)
class SourceData:
    """What an importer found, arrays not yet read where that can wait.

    Attributes:
        manifest: The N utterances.
        modalities: The M names.
        feed: Hands all N utterances to a writer, in order.
        notes: What the user should know: what was mended, guessed or left out.
    """

    manifest: pd.DataFrame
    modalities: tuple[str, ...]
    feed: Callable[[FeatureStoreWriter], None]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format of features.

    Attributes:
        read: Finds out what there is to import.
        recognise: Says why a file or folder looks like this format, "" when it does not.
        roots: The files and folders that the import depends on.
    """

    read: Callable[[Path, ImportOptions], SourceData]
    recognise: Callable[[Path], str]
    roots: Callable[[Path], Sequence[Path]] = lambda source: [source]


def chosen_keys(options: ImportOptions, found: Mapping[str, Sequence[str]], origin: Path) -> dict[str, str]:
    """Decide which part of the source each modality is.

    Args:
        options: What the user asked for.
        found: Per modality the keys that it may be.
        origin: The source, for messages.

    Returns:
        Modality -> key, in the wanted order.

    Raises:
        InputError: An unknown modality or key, or several keys and no word of the user.
    """
    wanted = [name for name, keys in found.items() if keys] if options.modalities is None else options.modalities
    chosen: dict[str, str] = {}
    for entry in wanted:
        name, _, key = entry.partition("=")
        keys = list(found.get(name, ())) if not key else [k for some in found.values() for k in some if k == key]
        if len(keys) > 1 and not key:
            raise InputError(
                f"{origin}: {name} can be {', '.join(keys)}",
                remedy=f"choose with --modalities, e.g. {name}={keys[0]}",
            )
        if not keys or name in chosen:
            known = ", ".join(f"{m}={k}" for m, some in found.items() for k in some)
            raise InputError(
                f"{origin}: --modalities {entry!r} {'stands twice' if name in chosen else 'is not there'}",
                remedy=f"choose of {known or 'other data, this holds no features'}",
            )
        chosen[name] = keys[0]
    if not chosen:
        raise InputError(f"{origin}: no features found", remedy="see docs/formats for the layout")
    return chosen
