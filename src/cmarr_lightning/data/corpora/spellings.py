"""How annotations of IEMOCAP and MSP-IMPROV spell emotions."""

from __future__ import annotations

__all__ = ["IEMOCAP_CODES", "IEMOCAP_FOUR", "MSP_IMPROV_FOUR", "OTHER_EMOTIONS"]

IEMOCAP_CODES = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
    "xxx": "undecided",
}
"""Codes of the released evaluation files of IEMOCAP -> category."""

_WORDS = {
    "anger": "angry",
    "excited": "happy",
    "excitement": "happy",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
IEMOCAP_FOUR = _WORDS | {code: _WORDS[word] for code, word in IEMOCAP_CODES.items() if word in _WORDS}
"""Category or code of IEMOCAP -> class of the four-class task, excited with happy."""

MSP_IMPROV_FOUR = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
"""Code of MSP-IMPROV -> class of the four-class task."""

_OTHER_CODES = ("dis", "fea", "fru", "oth", "sur", "xxx")
_OTHER_WORDS = ("disgusted", "frustrated", "surprised", "O", "X")
OTHER_EMOTIONS = frozenset({*_OTHER_CODES, *(IEMOCAP_CODES[code] for code in _OTHER_CODES), *_OTHER_WORDS})
"""Spellings of what lies outside the four classes: such utterances have no label, and need no warning."""
