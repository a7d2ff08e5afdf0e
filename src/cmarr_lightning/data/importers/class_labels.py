"""Names for class numbers, checked against the known totals of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmarr_lightning.data.corpora.totals import IEMOCAP_TOTALS, MSP_IMPROV_TOTALS
from cmarr_lightning.errors import InputError

__all__ = ["EMOTIONS", "IEMOCAP_DIALOGUE_ORDER", "SENTIMENTS", "name_numbers", "order_classes", "sentiment_columns"]

MMIN_ORDER = ("angry", "happy", "neutral", "sad")
"""Class numbers of the MMIN family on IEMOCAP; its files carry no names."""

IEMOCAP_DIALOGUE_ORDER = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
"""Class numbers of GCNet, MMGCN, COGMEN and conv-emotion on IEMOCAP; the four-way files stop after angry."""

EMOTIONS = {
    "angry": "anger",
    "excited": "excited",
    "frustrated": "frustration",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
}
"""Adjective of a class -> name of the category in the annotation of IEMOCAP."""

SENTIMENTS = ("negative", "positive")

_TOTALS: dict[str, Mapping[str, int]] = {"iemocap": IEMOCAP_TOTALS, "msp_improv": MSP_IMPROV_TOTALS}


def order_classes(
    counts: Sequence[int], corpus: str, classes: Sequence[str] | None, origin: Path, *, how: str = "as given"
) -> tuple[tuple[str, ...], str]:
    """Name the class numbers of the MMIN family and check the names by the totals of the corpus.

    Args:
        counts: Utterances per class number.
        corpus: "iemocap", "msp_improv" or "".
        classes: What the user or the format says.
        origin: The source, for messages.
        how: Who says it.

    Returns:
        The names in the order of their number, and a sentence about how they were found.

    Raises:
        InputError: The order is not known and was not given, a number has no name, or the whole corpus is
            there with other totals.
    """
    totals = _TOTALS.get(corpus, {})
    by_count = {count: name for name, count in totals.items()}
    found = ", ".join(f"{number}: {count}" for number, count in enumerate(counts))
    if classes is not None:
        names = tuple(classes)
    elif corpus == "iemocap":
        names, how = MMIN_ORDER, "the order of the MMIN family"
    elif sorted(counts) == sorted(by_count):
        names, how = tuple(by_count[count] for count in counts), "by their totals"
    else:
        raise InputError(
            f"{origin}: the classes have no names, and their totals ({found}) are not those of a known corpus",
            remedy="name them in the order of their numbers, e.g. --classes angry,happy,neutral,sad",
        )
    if len(names) < len(counts) or len(set(names)) < len(names):
        raise InputError(
            f"{origin}: {len(counts)} class numbers ({found}), names {', '.join(names)}",
            remedy="give one name per number with --classes",
        )
    named = {name: int(count) for name, count in zip(names, counts, strict=False)}
    whole = bool(totals) and sum(counts) == sum(totals.values())
    if whole and named != totals:
        raise InputError(
            f"{origin}: class totals {_list(named)}, but the corpus has {_list(totals)}; the names are misordered",
            remedy="name the classes in the right order with --classes, or leave it out",
        )
    checked = "the totals are those of the corpus" if whole else "not checked: this is not the whole corpus"
    return names, f"classes {', '.join(f'{i} {name}' for i, name in enumerate(names))} ({how}; {checked})"


def name_numbers(numbers: Sequence[object], names: Sequence[str], ids: Sequence[str], origin: Path) -> list[str]:
    """Turn class numbers into names.

    Raises:
        InputError: A label that is no whole number or out of range, with the utterance.
    """
    labels = []
    for number, utterance in zip(numbers, ids, strict=True):
        value = np.asarray(number)
        if value.ndim or value.dtype.kind not in "iuf" or value != value.astype(np.int64):
            raise InputError(f"{origin}, utterance {utterance!r}: label {number!r} is no class number", remedy=_LABELS)
        if not 0 <= int(value) < len(names):
            raise InputError(
                f"{origin}, utterance {utterance!r}: label {int(value)}, but the {len(names)} classes are "
                f"{', '.join(names)}",
                remedy=_LABELS,
            )
        labels.append(names[int(value)])
    return labels


def sentiment_columns(scores: Sequence[float]) -> dict[str, list[float] | list[str]]:
    """Keep regression labels and binarise them: 0 is outside the two-class task, as in the field's tables.

    Args:
        scores: From negative to positive, 0 = neutral.

    Examples:
        >>> sentiment_columns([-1.2, 0, 3])
        {'score': [-1.2, 0.0, 3.0], 'label': ['negative', '', 'positive']}
    """
    values = [float(score) for score in scores]
    return {"score": values, "label": [SENTIMENTS[value > 0] if value else "" for value in values]}


_LABELS = "mend the labels, or name all classes with --classes"


def _list(totals: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in totals.items())
