"""Import the feature folders of MMIN, IF-MMIN and NMER, or the JSON file that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from cmarr_lightning.data.importers.class_labels import order_classes
from cmarr_lightning.data.importers.corpus_ids import describe_ids
from cmarr_lightning.data.importers.guards import UNREADABLE, SizeBudget, refuse_some
from cmarr_lightning.data.importers.hdf5 import HDF5Frames
from cmarr_lightning.data.importers.mmin_targets import read_targets
from cmarr_lightning.data.importers.source import Format, ImportOptions, SourceData, chosen_keys
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["MMIN", "read_mmin"]

_FOLDERS = {"audio": "A", "video": "V", "text": "L"}
_USUAL = {"comparE", "comparE_raw", "denseface", "bert_large"}
_BLOCK_BYTES = 1 << 25


def read_mmin(source: Path, options: ImportOptions) -> SourceData:
    """Find the features, labels and official folds of an MMIN folder.

    The folder holds A/*.h5, V/*.h5 and L/*.h5 (flat HDF5, one (T, D) dataset per utterance) and
    target/<fold>/{trn,val,tst}_{label,int2name}.npy. Instead of the folder, the JSON file of the released
    programs can be named (`feature_root`, `target_root`).

    Args:
        source: Folder or JSON file.
        options: `modalities` choose HDF5 files by their stem (`audio=comparE_raw`).

    Returns:
        The data; the manifest has one column split_<fold> per official fold with train, val and test.

    Raises:
        InputError: A file is missing or damaged, labels disagree between folds or with the corpus, or an
            utterance has no features.
    """
    features, target = _roots(source)
    budget = SizeBudget(options.max_bytes)
    targets = read_targets(target, budget, lenient=options.repair_folds)
    manifest = validate_manifest(pd.DataFrame({"utterance_id": targets.ids}), origin=str(target))
    corpus, described = describe_ids(targets.ids)
    names, how = order_classes(targets.counts, corpus, options.classes, target)
    files = _files(features, options)
    missing = _check_keys(files, targets.ids)
    columns = {**described, "label": [names[number] for number in targets.labels], **targets.splits}
    manifest = manifest.assign(**columns)

    def feed(writer: FeatureStoreWriter) -> None:
        with ExitStack() as opened:
            frames = {m: opened.enter_context(HDF5Frames(file, budget)) for m, file in files.items()}
            for block, lengths in _blocks(frames, targets.ids):
                writer.add_block(block, lengths=lengths)

    return SourceData(manifest, tuple(files), feed, (how, *targets.notes, *missing))


def _roots(source: Path) -> tuple[Path, Path]:
    """Find the folder of the features and the folder of the targets."""
    if source.is_dir():
        return source, source / "target"
    try:
        config = json.loads(source.read_text(encoding="utf-8"))
        features, target = Path(config["feature_root"]), Path(config.get("target_root", ""))
    except (*UNREADABLE, AttributeError) as error:
        raise InputError(
            f"{source}: neither a folder nor an MMIN configuration ({type(error).__name__}: {error})",
            remedy="name the folder that holds A, V, L and target",
        ) from error
    features = source.parent / features
    if not features.is_dir():
        raise InputError(
            f"{source}: feature_root {features} is not a folder here",
            remedy="name the folder that holds A, V, L and target, instead of the JSON file",
        )
    return features, source.parent / target if "target_root" in config else features / "target"


def _files(features: Path, options: ImportOptions) -> dict[str, Path]:
    """Choose one HDF5 file per modality."""
    found: dict[str, Sequence[str]] = {}
    paths: dict[str, Path] = {}
    for modality, folder in _FOLDERS.items():
        stems = {f.stem: f for f in sorted((features / folder).glob("*.h5")) if not f.stem.endswith("_mean_std")}
        usual = [stem for stem in stems if stem in _USUAL]
        found[modality] = usual if len(usual) == 1 and options.modalities is None else list(stems)
        paths |= stems
    return {m: paths[key] for m, key in chosen_keys(options, found, features).items()}


def _check_keys(files: Mapping[str, Path], ids: Sequence[str]) -> list[str]:
    """Compare the utterances of the HDF5 files with the labelled ones; say what each file lacks and has more."""
    notes, nowhere = [], set(ids)
    for modality, file in files.items():
        with HDF5Frames(file, SizeBudget()) as frames:
            keys = frames.keys
        nowhere -= keys
        lacking = [name for name in ids if name not in keys]
        if len(lacking) == len(ids):
            raise InputError(
                f"{file}: none of the {len(ids)} labelled utterances, e.g. no key {ids[0]!r}",
                remedy=f"name the file that belongs to the targets, its keys are like {min(keys)!r}",
            )
        if lacking:
            notes.append(f"{len(lacking)} utterances lack {modality}, e.g. {lacking[0]}: stored as absent")
        if more := len(keys) - (len(ids) - len(lacking)):
            notes.append(f"{file.name} holds {more} utterances without a label in any fold: left out")
    refuse_some(sorted(nowhere), "no features for", "add them, or remove the utterances from the targets")
    return notes


def _blocks(
    files: Mapping[str, HDF5Frames], ids: Sequence[str]
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Read utterances in runs of about 32 MB: memory stays small however large the files are."""
    held: dict[str, list[np.ndarray]] = {m: [] for m in files}
    lengths: dict[str, list[int]] = {m: [] for m in files}
    first: dict[str, tuple[str, np.ndarray]] = {}
    size = 0
    for position, utterance in enumerate(ids, start=1):
        for modality, file in files.items():
            if utterance not in file.keys:
                lengths[modality].append(0)
                continue
            frames = file.frames(utterance)
            _check_like(file.path, utterance, frames, *first.setdefault(modality, (utterance, frames)))
            frames = np.atleast_2d(frames)
            held[modality].append(frames)
            lengths[modality].append(len(frames))
            size += frames.nbytes
        if size >= _BLOCK_BYTES or position == len(ids):
            yield (
                {m: np.concatenate(arrays) for m, arrays in held.items() if arrays},
                {m: np.array(counts) for m, counts in lengths.items() if held[m]},
            )
            held, lengths, size = {m: [] for m in files}, {m: [] for m in files}, 0


def _check_like(path: Path, utterance: str, frames: np.ndarray, before: str, example: np.ndarray) -> None:
    for what, one, other in (
        ("dtype", frames.dtype, example.dtype),
        ("axes", frames.ndim, example.ndim),
        ("width", frames.shape[-1], example.shape[-1]),
    ):
        if one != other:
            raise InputError(
                f"{path}, key {utterance!r}: {what} {one}, but {other} in {before!r}",
                remedy="give every utterance the same width, dtype and number of axes",
            )


def _recognise(source: Path) -> str:
    if source.is_dir():
        found = sorted((source / "target").glob("*/trn_label.npy"))
        return f"{len(found)} folds in target/*/trn_label.npy" if found else ""
    if source.suffix != ".json" or not source.is_file():
        return ""
    return "a JSON file with feature_root" if '"feature_root"' in source.read_text("utf-8", "replace") else ""


MMIN = Format(read_mmin, _recognise, lambda source: [source, *(_roots(source) if source.is_file() else ())])
"""Folders of MMIN, IF-MMIN and NMER."""
