"""What the ids of IEMOCAP and MSP-IMPROV say about an utterance."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["describe_ids"]

_IEMOCAP = re.compile(r"(?P<session>Ses\d\d)[FM]_(?P<scenario>impro|script)\w*_(?P<gender>[FM])[^_]+")
_MSP_IMPROV = re.compile(
    r"MSP-IMPROV-(?P<scenario>S\d\d)(?P<target>[AHNS])-(?P<speaker>(?P<gender>[FM])(?P<session>\d\d))"
    r"-(?P<recording>[PRST])-\w+"
)
_SCENARIOS = {"impro": "improvised", "script": "scripted"}


def describe_ids(ids: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """Recognise the corpus by its ids and read session, speaker and so on from them.

    In ids of IEMOCAP the letter after the session says who wore the markers; who speaks stands in the *last*
    part: `Ses01F_impro01_M003` is spoken by Ses01M.

    Args:
        ids: The utterances.

    Returns:
        "iemocap", "msp_improv" or "" when an id fits neither, and the columns of a manifest.

    Examples:
        >>> corpus, columns = describe_ids(["Ses01F_impro01_M003"])
        >>> corpus, columns["speaker"], columns["gender"], columns["scenario"]
        ('iemocap', ['Ses01M'], ['M'], ['improvised'])
        >>> describe_ids(["MSP-IMPROV-S01A-F02-S-FM01"])[1]["session"]
        ['Ses02']
        >>> describe_ids(["mine"])
        ('', {})
    """
    for corpus, pattern, describe in (
        ("iemocap", _IEMOCAP, _describe_iemocap),
        ("msp_improv", _MSP_IMPROV, _describe_msp_improv),
    ):
        matches = [pattern.fullmatch(name) for name in ids]
        if ids and all(matches):
            rows = [describe(match) for match in matches if match]
            return corpus, {column: [row[column] for row in rows] for column in rows[0]}
    return "", {}


def _describe_iemocap(match: re.Match[str]) -> dict[str, str]:
    return {
        "dialogue_id": match[0].rpartition("_")[0],
        "session": match["session"],
        "speaker": match["session"] + match["gender"],
        "gender": match["gender"],
        "scenario": _SCENARIOS[match["scenario"]],
    }


def _describe_msp_improv(match: re.Match[str]) -> dict[str, str]:
    return {
        "dialogue_id": match[0].rpartition("-")[0],
        "session": f"Ses{match['session']}",
        "speaker": match["speaker"],
        "gender": match["gender"],
        "scenario": match["scenario"],
        "target_emotion": match["target"],
        "recording": match["recording"],
    }
