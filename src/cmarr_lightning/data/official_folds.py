"""Audit of the folds that come with a corpus as columns split_<fold>, and their repair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmarr_lightning.data.columns import name_some, text_column
from cmarr_lightning.data.folds import make_folds, official_columns
from cmarr_lightning.errors import InputError

__all__ = ["audit_official_folds", "repair_official_folds"]

_PARTS = ("train", "val", "test")


def audit_official_folds(manifest: pd.DataFrame) -> list[str]:
    """Say what is wrong with official folds that were meant as a cross-validation.

    Args:
        manifest: The N utterances, with columns split_<fold> of train, val, test, or "" = in no part.

    Returns:
        One sentence per fault, none when the folds are fair: folds that repeat another one, a part that is
        empty, speakers in two parts of a fold, and who is tested never or more than once.
    """
    columns = official_columns(manifest)
    labelled = text_column(manifest, "label", purpose="fold audit") != ""
    speakers = text_column(manifest, "speaker", purpose="fold audit")
    ids = manifest["utterance_id"].to_numpy()
    parts = {column: text_column(manifest, column, purpose="fold audit") for column in columns}
    faults = _repeated(parts)
    for column, cells in parts.items():
        faults += [f"{column} has no {part} utterance" for part in _PARTS if not (cells == part).any()]
        if (outside := labelled & (cells == "")).any():
            faults.append(f"{column} leaves {outside.sum()} labelled utterances out: {name_some(ids[outside])}")
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            if common := (set(speakers[cells == first]) & set(speakers[cells == second])) - {""}:
                faults.append(f"{column}: speakers in both {first} and {second}: {name_some(common)}")
    if columns:
        tested = np.sum([cells == "test" for cells in parts.values()], axis=0)
        for wrong, what in ((labelled & (tested == 0), "never tested"), (tested > 1, "tested more than once")):
            if wrong.any():
                who = name_some(set(speakers[wrong]) - {""}) or name_some(ids[wrong])
                faults.append(f"{what}: {wrong.sum()} utterances ({who})")
    return faults


def repair_official_folds(manifest: pd.DataFrame) -> pd.DataFrame:
    """Replace official folds by leaving one speaker out: the other speaker of the session validates.

    Args:
        manifest: The utterances, with session and speaker.

    Returns:
        The manifest with new columns split_1, split_2, ... in the order of sessions and speakers.

    Raises:
        InputError: Sessions or speakers are unknown.
    """
    labelled = text_column(manifest, "label", purpose="fold repair") != ""
    rows = np.flatnonzero(labelled)
    for column in ("session", "speaker"):
        if (text_column(manifest, column, purpose="fold repair")[rows] == "").any() or not len(rows):
            raise InputError(
                f"folds cannot be repaired: the column {column} is empty",
                remedy="leave --repair-folds out; the ids of this source do not tell the speakers",
            )
    folds = make_folds(manifest, rows, np.zeros(len(manifest), dtype=np.int64), "speaker")
    repaired = manifest.drop(columns=official_columns(manifest))
    for number, split in enumerate(folds, start=1):
        cells = np.full(len(manifest), "", dtype=object)
        for part in _PARTS:
            cells[getattr(split, part)] = part
        repaired[f"split_{number}"] = cells
    return repaired


def _repeated(parts: dict[str, np.ndarray]) -> list[str]:
    faults: list[str] = []
    first: dict[tuple[str, ...], str] = {}
    for column, cells in parts.items():
        before = first.setdefault(tuple(cells), column)
        if before != column:
            faults.append(f"{column} repeats {before}: the same training, validation and test utterances")
    return faults
