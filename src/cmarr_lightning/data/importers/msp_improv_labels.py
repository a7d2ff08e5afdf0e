"""Read the annotation of MSP-IMPROV as it is released."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from cmarr_lightning.data.corpora.spellings import MSP_IMPROV_FOUR
from cmarr_lightning.data.importers.annotation_text import numbered_lines, tally
from cmarr_lightning.data.importers.corpus_ids import describe_ids
from cmarr_lightning.errors import InputError

__all__ = ["EVALUATION_FILES", "read_msp_improv_labels"]

EVALUATION_FILES = ("Evalution.txt", "Evaluation.txt")
"""Names of the evaluation file; the first is how the corpus spells it."""

_NUMBER = r"\s*(\d+(?:\.\d+)?|NaN)\s*"
_TURN = re.compile(rf"UTD-IMPROV-(\S+)\.avi;\s*([A-Z]);\s*A:{_NUMBER};\s*V:{_NUMBER};\s*D:{_NUMBER};\s*N:{_NUMBER};?")
_VOTE = re.compile(r"[^;]+;\s*(Angry|Happy|Neutral|Other|Sad);")
_DIMENSIONS = ("activation", "valence", "dominance", "naturalness")


def read_msp_improv_labels(source: Path) -> pd.DataFrame:
    """Read the evaluation file.

    Args:
        source: The folder with Evalution.txt, or the file.

    Returns:
        One row per utterance, sorted by id: what the id says, emotion (A angry, H happy, N neutral, S sad, O
        other, X no agreement), label (the four-class task, "" = outside), activation, valence, dominance and
        naturalness (1 to 5, mean, missing where nobody rated), and votes as in "neutral:3 sad:1". Ids begin
        with MSP-IMPROV as the names of the audio files do; the evaluation file names the videos.

    Raises:
        InputError: No such file, or a line that is not what the corpus documents; with file and line.
    """
    path = _evaluation_file(source)
    turns: list[dict[str, Any]] = []
    votes: list[list[str]] = []
    for number, line in numbered_lines(path):
        if line.startswith("UTD-IMPROV"):
            turns.append(_turn(line, f"{path}, line {number}"))
            votes.append([])
        elif turns and (vote := _VOTE.match(line)):
            votes[-1].append(vote[1].lower())
    if not turns:
        raise InputError(f"{path}: no utterance in it", remedy="copy the file again from the corpus")
    table = pd.DataFrame([turn | {"votes": tally(cast)} for turn, cast in zip(turns, votes, strict=True)])
    table = table.sort_values("utterance_id", ignore_index=True)
    ids = table["utterance_id"].tolist()
    corpus, described = describe_ids(ids)
    if corpus != "msp_improv":
        odd = next(name for name in ids if describe_ids([name])[0] != "msp_improv")
        raise InputError(f"{path}: {odd!r} is no id of MSP-IMPROV", remedy="copy the file again from the corpus")
    return table.assign(**described)


def _evaluation_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = [source / name for name in EVALUATION_FILES if (source / name).is_file()]
    if not found:
        raise InputError(f"{source}: neither {' nor '.join(EVALUATION_FILES)}", remedy="name the folder of MSP-IMPROV")
    return found[0]


def _turn(line: str, where: str) -> dict[str, Any]:
    match = _TURN.fullmatch(line)
    if match is None:
        raise InputError(
            f"{where}: {line[:60]!r} is not `UTD-IMPROV-<id>.avi; emotion; A:..; V:..; D:..; N:..;`",
            remedy="copy the file again from the corpus",
        )
    name, emotion, *numbers = match.groups()
    means = dict(zip(_DIMENSIONS, map(float, numbers), strict=True))
    return {
        "utterance_id": f"MSP-IMPROV-{name}",
        "emotion": emotion,
        "label": MSP_IMPROV_FOUR.get(emotion, ""),
        **means,
    }
