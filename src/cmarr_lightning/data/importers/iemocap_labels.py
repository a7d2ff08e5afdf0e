"""Read the annotation of IEMOCAP as it is released."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from cmarr_lightning.data.corpora.spellings import IEMOCAP_CODES, IEMOCAP_FOUR
from cmarr_lightning.data.importers.annotation_text import numbered_lines, tally
from cmarr_lightning.data.importers.corpus_ids import describe_ids
from cmarr_lightning.errors import InputError

__all__ = ["read_iemocap_labels"]

_TURN = re.compile(
    r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\s+(?P<id>\S+)\s+(?P<emotion>\w+)"
    r"\s+\[(?P<valence>[\d.]+), (?P<activation>[\d.]+), (?P<dominance>[\d.]+)\]"
)
_VOTE = re.compile(r"C-(?P<who>[EFM])\d*:\s*(?P<categories>[^()]*)")


def read_iemocap_labels(source: Path) -> pd.DataFrame:
    """Read Session*/dialog/EmoEvaluation/*.txt.

    Args:
        source: The folder that holds Session1, Session2, ...

    Returns:
        One row per utterance, sorted by id: what the id says (the speaker by its *last* part), start and end
        in seconds, emotion (what most evaluators chose, "undecided" without a majority), label (the four-class
        task, excited with happy, "" = outside), valence, activation and dominance (1 to 5, mean), votes
        (evaluators) and self_votes (the actors themselves), as in "neutral:2 sadness:1".

    Raises:
        InputError: No such files, or a line that is not what the corpus documents; with file and line.
    """
    files = sorted(f for f in source.glob("Session*/dialog/EmoEvaluation/*.txt") if not f.name.startswith("."))
    if not files:
        raise InputError(
            f"{source}: no Session*/dialog/EmoEvaluation/*.txt",
            remedy="name the folder of IEMOCAP that holds Session1 to Session5",
        )
    turns = sorted((turn for file in files for turn in _turns(file)), key=lambda turn: turn["utterance_id"])
    ids = [turn["utterance_id"] for turn in turns]
    corpus, described = describe_ids(ids)
    if corpus != "iemocap":
        odd = next((name for name in ids if describe_ids([name])[0] != "iemocap"), "none")
        raise InputError(f"{source}: {odd!r} is no id of IEMOCAP", remedy="name the folder of IEMOCAP")
    return pd.DataFrame({"utterance_id": ids, **described} | {key: [t[key] for t in turns] for key in turns[0]})


def _turns(path: Path) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    votes: list[dict[str, list[str]]] = []
    for number, line in numbered_lines(path):
        if line.startswith("["):
            turns.append(_turn(line, f"{path}, line {number}"))
            votes.append({"votes": [], "self_votes": []})
        elif turns and (vote := _VOTE.match(line)):
            names = [name.strip().lower() for name in vote["categories"].split(";")]
            votes[-1]["votes" if vote["who"] == "E" else "self_votes"] += [name for name in names if name]
    if not turns:
        raise InputError(f"{path}: no utterance in it", remedy="copy the file again from the corpus")
    return [turn | {key: tally(some) for key, some in cast.items()} for turn, cast in zip(turns, votes, strict=True)]


def _turn(line: str, where: str) -> dict[str, Any]:
    match = _TURN.fullmatch(line)
    if match is None or match["emotion"] not in IEMOCAP_CODES:
        raise InputError(
            f"{where}: {line[:60]!r} is not `[start - end] id emotion [valence, activation, dominance]`",
            remedy="copy the file again from the corpus",
        )
    try:
        numbers = {key: float(match[key]) for key in ("start", "end", "valence", "activation", "dominance")}
    except ValueError as error:
        raise InputError(f"{where}: {error}", remedy="copy the file again from the corpus") from error
    emotion = IEMOCAP_CODES[match["emotion"]]
    return {"utterance_id": match["id"], "emotion": emotion, "label": IEMOCAP_FOUR.get(emotion, ""), **numbers}
