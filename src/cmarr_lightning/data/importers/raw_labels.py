"""Tables of utterances from the annotation files that come with a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import pandas as pd

from cmarr_lightning.data.importers.iemocap_labels import read_iemocap_labels
from cmarr_lightning.data.importers.msp_improv_labels import EVALUATION_FILES, read_msp_improv_labels
from cmarr_lightning.data.manifest import validate_manifest
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing

__all__ = ["LABEL_READERS", "recognise_labels", "write_labels"]

LABEL_READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    "iemocap-labels": read_iemocap_labels,
    "msp-improv-labels": read_msp_improv_labels,
}
"""Name on the command line -> reader of a folder, which gives one row per utterance."""


def write_labels(name: str, source: str | Path, out: str | Path, *, overwrite: bool = False) -> tuple[int, bool]:
    """Write the table of utterances of a corpus as the CSV file that `cmarr prepare` reads beside features.

    Args:
        name: A key of `LABEL_READERS`.
        source: The folder of the corpus.
        out: The CSV file.
        overwrite: Replace another file.

    Returns:
        Number of utterances, and whether the very same file was there already.

    Raises:
        InputError: No annotation files there, a line that cannot be read, or `out` exists and differs.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.suffix != ".csv":
        raise InputError(f"{out}: the labels become a CSV file", remedy="name a file that ends in .csv")
    table = validate_manifest(LABEL_READERS[name](source), origin=str(source))
    text = StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    content = text.getvalue().encode()
    if out.exists():
        if out.is_file() and out.read_bytes() == content:
            return len(table), True
        if not overwrite or not out.is_file():
            raise InputError(f"{out}: exists already", remedy="choose another file or pass --overwrite")
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})", remedy="choose another place") from error
    return len(table), False


def recognise_labels(source: Path) -> tuple[str, str] | None:
    """Say whether a folder is a corpus with its annotation files: name and why, None when it is not."""
    if any(source.glob("Session*/dialog/EmoEvaluation/*.txt")):
        return "iemocap-labels", "Session*/dialog/EmoEvaluation"
    if found := [name for name in EVALUATION_FILES if (source / name).is_file()]:
        return "msp-improv-labels", found[0]
    return None
