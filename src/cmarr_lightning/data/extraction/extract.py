"""Extract features utterance by utterance, resumable, into a store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cmarr_lightning.data.extraction.inputs import find_recordings, find_transcripts
from cmarr_lightning.data.importers.guards import SizeBudget, read_npy
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing

__all__ = ["Encoder", "extract_features"]


class Encoder(Protocol):
    """What extraction needs of an encoder."""

    batched: bool

    def encode(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """Encode inputs: each (T, D)."""


def extract_features(
    kind: str,
    source: str | Path,
    out: str | Path,
    make_encoder: Callable[[], Encoder],
    *,
    settings: Mapping[str, str | int],
    batch_size: int = 8,
    pool: bool = False,
    column: str = "transcript",
    join: str | Path | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Extract the modality audio or text of a folder into a store.

    Finished utterances are kept beside `out` until the store is written, so that an interrupted run goes on
    where it was.

    Args:
        kind: "audio": <utterance id>.wav files; "text": transcripts, see `find_transcripts`.
        source: The folder.
        out: The store to write.
        make_encoder: Loads the encoder; called only when something is left to do.
        settings: What determines the features, e.g. model and layer; kept in the notes of the store.
        batch_size: Utterances per call of the encoder.
        pool: Keep the mean over time, a vector, in place of the frames.
        column: Column of the transcripts.
        join: A store whose utterances and modalities the new store takes over.
        overwrite: Replace an existing store.
        report: Is told how many utterances are done, and of how many.

    Raises:
        InputError: Nothing to extract from, inputs that cannot be read, or another extraction half done.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    base = None if join is None else FeatureStore.open(join)
    if base is not None and kind in base.modalities:
        raise InputError(f"{base.path}: has the modality {kind} already", remedy="leave --join out, or join another")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists already", remedy="choose another folder or pass --overwrite")
    table = None if base is None else base.manifest
    inputs: Mapping[str, Any]
    if kind == "audio":
        manifest, inputs = find_recordings(source, table)
    else:
        manifest, inputs = find_transcripts(source, table, column=column)
    about = {"kind": kind, "source": str(source.resolve()), "pool": pool, **settings}
    parts = _open_parts(out, about)
    try:
        _fill(parts, inputs, make_encoder, batch_size, report, pool=pool)
    finally:
        if not any(parts.glob("*.npy")):
            shutil.rmtree(parts)
    store = _assemble(out, manifest, kind, parts, set(inputs), base, about, overwrite=overwrite)
    shutil.rmtree(parts)
    return store


def _open_parts(out: Path, about: Mapping[str, Any]) -> Path:
    """Make the folder of finished utterances, or find it as the same extraction left it."""
    parts = out.with_name(f"{out.name}.extracting")
    record = parts / "settings.json"
    content = json.dumps(about, sort_keys=True)
    if record.is_file() and record.read_text(encoding="utf-8") != content:
        raise InputError(
            f"{parts}: another extraction was left half done here", remedy="finish it, or remove the folder"
        )
    with replacing(record) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return parts


def _fill(
    parts: Path,
    inputs: Mapping[str, Any],
    make_encoder: Callable[[], Encoder],
    batch_size: int,
    report: Callable[[int, int], None],
    *,
    pool: bool,
) -> None:
    left = [name for name in inputs if not (parts / f"{name}.npy").exists()]
    done = len(inputs) - len(left)
    report(done, len(inputs))
    if not left:
        return
    encoder = make_encoder()
    # Inputs of like size together: less padding. Files by their bytes, texts by their letters.
    left.sort(key=lambda name: inputs[name].stat().st_size if isinstance(inputs[name], Path) else len(inputs[name]))
    step = batch_size if encoder.batched else 1
    for start in range(0, len(left), step):
        names = left[start : start + step]
        for name, frames in zip(names, encoder.encode([inputs[n] for n in names]), strict=True):
            with replacing(parts / f"{name}.npy") as temporary:
                np.save(temporary, frames.mean(axis=0) if pool else frames)
        done += len(names)
        report(done, len(inputs))


def _assemble(
    out: Path,
    manifest: pd.DataFrame,
    kind: str,
    parts: Path,
    extracted: set[str],
    base: FeatureStore | None,
    about: Mapping[str, Any],
    *,
    overwrite: bool,
) -> FeatureStore:
    """Put the finished utterances into a store, beside the modalities of another one."""
    modalities = (kind,) if base is None else (*base.modalities, kind)
    if base is None:
        manifest = manifest[manifest["utterance_id"].isin(extracted)].reset_index(drop=True)
    note = f"{kind} extracted: " + ", ".join(f"{key} {value}" for key, value in about.items() if key != "kind")
    with FeatureStoreWriter(
        out,
        manifest,
        modalities,
        name=out.resolve().name if base is None else base.name,
        source=str(about["source"]) if base is None else f"{base.source}; {about['source']}",
        synthetic=base is not None and base.synthetic,
        units={kind: str(about["model"])} | ({} if base is None else base.units),
        notes=(*(() if base is None else base.notes), note),
        overwrite=overwrite,
    ) as writer:
        for row, name in enumerate(manifest["utterance_id"]):
            features = {} if base is None else _features(base, row)
            if name in extracted:
                features[kind] = read_npy(parts / f"{name}.npy", SizeBudget())
            writer.add(name, features)
    return FeatureStore.open(out)


def _features(store: FeatureStore, row: int) -> dict[str, np.ndarray]:
    """Get what an utterance of a store has, vectors as vectors."""
    present = {m: store.get(row, m) for m in store.modalities}
    return {m: a[0] if store.kinds[m] == "vector" else a for m, a in present.items() if len(a)}
