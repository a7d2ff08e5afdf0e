"""Import GCNet's data: a pickle of labels and a folder of .npy files per feature."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cmarr_lightning.data.importers.dialogues import Dialogues, label_columns, labels_and_speakers
from cmarr_lightning.data.importers.guards import SizeBudget, find_under, read_npy, refuse_some
from cmarr_lightning.data.importers.safe_pickle import load_pickle
from cmarr_lightning.data.importers.source import Format, ImportOptions, SourceData, chosen_keys
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["GCNET", "read_gcnet"]

_LABELS = "*_features_raw_*way.pkl"
_TELLING = {
    "audio": ("wav2vec", "hubert", "wavlm", "egemaps", "compare", "is09", "is10", "audio", "whisper", "vggish"),
    "video": ("manet", "face", "resnet", "video", "visual", "clip", "openface", "senet"),
    "text": ("bert", "gpt", "text", "glove", "llama", "bge"),
}
"""Parts of the names of feature folders; the first modality with one of them has the folder."""


def read_gcnet(source: Path, options: ImportOptions) -> SourceData:
    """Find labels and features of GCNet's layout.

    The folder holds <NAME>_features_raw_<C>way.pkl, a list of six fields (utterance ids, labels, speakers,
    sentences by dialogue; training and test dialogues) or seven (with validation dialogues), and
    features/<feature>/<utterance id>.npy, (D,) or (T, D).

    Args:
        source: The folder, or the pickle in it where there are several.
        options: `modalities` choose features (`audio=wav2vec-large-c-UTT`).

    Returns:
        The data; the manifest has a column split, and for regression labels a column score.

    Raises:
        InputError: Another layout, labels that are none, or an utterance without features.
    """
    path = _label_file(source)
    budget = SizeBudget(options.max_bytes)
    fields = load_pickle(path, budget)
    if not isinstance(fields, list | tuple) or len(fields) not in (6, 7):
        raise InputError(f"{path}: not the six or seven fields of GCNet", remedy="name another format")
    dialogues = Dialogues(path, fields[0])
    labels, speakers, _ = labels_and_speakers(
        dialogues.flat(fields[1], "labels"), dialogues.flat(fields[2], "speakers"), path
    )
    columns, notes = label_columns(dialogues, labels, speakers, options, path)
    parts = ("train", "val", "test") if len(fields) == 7 else ("train", "test")
    columns["split"] = dialogues.parts(**dict(zip(parts, fields[4:], strict=True)))
    columns["transcript"] = [str(sentence) for sentence in dialogues.flat(fields[3], "sentences")]
    if "val" not in parts:
        notes.append("no validation dialogues: use the protocol session or speaker")
    manifest = validate_manifest(pd.DataFrame({"utterance_id": dialogues.ids, **columns}), origin=str(path))
    folders = _folders(path.parent / "features", options)
    files = {m: find_under(folder, "*.npy") for m, folder in folders.items()}
    notes += _compare(files, folders, dialogues.ids)

    def feed(writer: FeatureStoreWriter) -> None:
        for utterance in dialogues.ids:
            own = {m: found[utterance] for m, found in files.items() if utterance in found}
            writer.add(utterance, {m: read_npy(file, budget) for m, file in own.items()}, files=own)

    return SourceData(manifest, tuple(folders), feed, tuple(notes))


def _label_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(source.glob(_LABELS))
    if len(found) != 1:
        raise InputError(
            f"{source}: {len(found)} files {_LABELS} ({', '.join(file.name for file in found) or 'none'})",
            remedy="name the one to import in place of the folder",
        )
    return found[0]


def _folders(features: Path, options: ImportOptions) -> dict[str, Path]:
    """Find the folder of each modality by its name."""
    found: dict[str, list[str]] = {m: [] for m in _TELLING}
    for folder in sorted(features.iterdir() if features.is_dir() else ()):
        telling = [m for m, words in _TELLING.items() if any(word in folder.name.lower() for word in words)]
        modality = telling[0] if telling else folder.name
        if folder.is_dir():
            found.setdefault(modality, []).append(folder.name)
    return {m: features / key for m, key in chosen_keys(options, found, features).items()}


def _compare(files: dict[str, dict[str, Path]], folders: dict[str, Path], ids: list[str]) -> list[str]:
    notes = []
    for modality, found in files.items():
        if not any(name in found for name in ids):
            raise InputError(
                f"{folders[modality]}: no <utterance id>.npy of any utterance, e.g. {ids[0]}.npy",
                remedy="extract one file per utterance; folders of single faces are not read",
            )
        if lacking := [name for name in ids if name not in found]:
            notes.append(f"{len(lacking)} utterances lack {modality}, e.g. {lacking[0]}: stored as absent")
        if more := len(set(found) - set(ids)):
            notes.append(f"{folders[modality].name} holds {more} files of other utterances: left out")
    nowhere = [name for name in ids if not any(name in found for found in files.values())]
    refuse_some(nowhere, "no features for", "add them to the features folder")
    return notes


def _recognise(source: Path) -> str:
    if source.is_dir():
        found = sorted(source.glob(_LABELS))
        return f"{found[0].name} beside features/" if found and (source / "features").is_dir() else ""
    return "its name *_features_raw_*way.pkl" if source.match(_LABELS) else ""


def _roots(source: Path) -> list[Path]:
    return [_label_file(source), _label_file(source).parent / "features"]


GCNET = Format(read_gcnet, _recognise, _roots)
"""GCNet: IEMOCAP 4-way and 6-way, CMU-MOSI, CMU-MOSEI."""
