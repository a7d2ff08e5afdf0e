"""What features are extracted from: recordings and transcripts, by utterance."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd

from cmarr_lightning.data.columns import text_column
from cmarr_lightning.data.manifest import read_manifest, validate_manifest
from cmarr_lightning.errors import InputError

__all__ = ["find_recordings", "find_transcripts", "read_recording"]


def find_recordings(source: Path, table: pd.DataFrame | None = None) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Find <utterance id>.wav anywhere below a folder.

    Args:
        source: The folder; a metadata.csv in it is the table of utterances.
        table: The utterances, in place of metadata.csv.

    Returns:
        The N utterances and the files of those that have one; without a table, one utterance per file.

    Raises:
        InputError: No recordings, or two files of one utterance.
    """
    files: dict[str, Path] = {}
    for file in sorted(source.rglob("*.wav")):
        if files.setdefault(file.stem, file) != file:
            raise InputError(f"{file}: {files[file.stem]} has the same name", remedy="give each utterance one file")
    if not files:
        raise InputError(f"{source}: no .wav files", remedy="convert the recordings, e.g. ffmpeg -i x.mp4 x.wav")
    if table is None:
        table = _table(source)
    if table is None:
        table = validate_manifest(pd.DataFrame({"utterance_id": list(files)}), origin=str(source))
    ids = set(table["utterance_id"])
    found = {name: file for name, file in files.items() if name in ids}
    if not found:
        raise InputError(
            f"{source}: no file is named after an utterance, e.g. {next(iter(files.values())).name}",
            remedy="name the files <utterance_id>.wav",
        )
    return table, found


def find_transcripts(
    source: Path, table: pd.DataFrame | None = None, *, column: str = "transcript"
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Find what was said: a column of metadata.csv or of the table, or files <utterance id>.txt.

    Args:
        source: The folder.
        table: The utterances, in place of metadata.csv.
        column: The column of the transcripts.

    Returns:
        The N utterances and the transcripts of those that have one.

    Raises:
        InputError: No transcripts, or a file that is not UTF-8.
    """
    if table is None:
        table = _table(source)
    if table is not None and column in table:
        texts = dict(zip(table["utterance_id"], text_column(table, column, purpose="transcripts"), strict=True))
    else:
        texts = {file.stem: _read_text(file) for file in sorted(source.rglob("*.txt"))}
    if table is None:
        table = validate_manifest(pd.DataFrame({"utterance_id": list(texts)}), origin=str(source))
    ids = set(table["utterance_id"])
    texts = {name: text.strip() for name, text in texts.items() if name in ids and text.strip()}
    if not texts:
        raise InputError(
            f"{source}: no transcript of any utterance",
            remedy=f"add a column {column} to metadata.csv, or files <utterance_id>.txt",
        )
    return table, texts


def read_recording(path: Path, rate: int) -> np.ndarray:
    """Read a WAV file as one channel at a sampling rate.

    Args:
        path: The file, integers or floats.
        rate: The wanted rate in Hz.

    Returns:
        (T,) float32 in -1 to 1, channels averaged.

    Raises:
        InputError: Not a readable WAV file, or silence of no length.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        recorded, wave = wavfile.read(path)
    except (OSError, ValueError, EOFError, KeyError, MemoryError, struct.error) as error:
        raise InputError(
            f"{path}: not a readable WAV file ({error})", remedy="convert it again, e.g. by ffmpeg"
        ) from error
    if not wave.size or recorded <= 0:
        raise InputError(f"{path}: no sound in it", remedy="leave the recording out")
    if wave.dtype.kind in "iu":
        middle = 128 if wave.dtype == np.uint8 else 0
        wave = (wave.astype(np.float64) - middle) / (2.0 ** (8 * wave.dtype.itemsize - 1))
    mono = wave.reshape(len(wave), -1).mean(axis=1)
    if recorded != rate:
        common = int(np.gcd(rate, recorded))
        mono = resample_poly(mono, rate // common, recorded // common)
    return np.asarray(mono, dtype=np.float32)


def _table(source: Path) -> pd.DataFrame | None:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder", remedy="name the folder of the recordings or transcripts")
    path = source / "metadata.csv"
    return read_manifest(path) if path.is_file() else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})", remedy="save it as UTF-8") from error
