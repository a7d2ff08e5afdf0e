"""Training, validation and test rows of every fold, and the audit that they are fair."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from cmarr_lightning.data.columns import name_some, text_column
from cmarr_lightning.errors import InputError

__all__ = ["Protocol", "Split", "audit_folds", "choose_fold", "make_folds", "official_columns"]

Protocol: TypeAlias = Literal["session", "speaker", "column", "official", "stratified"]
"""How the labelled utterances are split.

session: leave one session out, validate on the next one (the first after the last).
speaker: leave one speaker out, validate on the other speakers of the session, train on the other sessions.
column: leave one value of a column out, validate on the next value (the first after the last).
official: a column per fold says train, val or test: the one that is named, else "split" where there is one, else
    split_1, split_2, ... as folds of one cross-validation.
stratified: k folds of equal class shares, seeded, validate on the next fold; for corpora without speakers.
"""

_NUMBERED = re.compile(r"split_(\d+)")


@dataclass(frozen=True)
class Split:
    """The rows of one fold, each (R,) int64, ascending.

    Attributes:
        train: Rows for training.
        val: Rows for choosing the model.
        test: Rows for the numbers that are reported.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_folds(
    manifest: pd.DataFrame,
    rows: np.ndarray,
    labels: np.ndarray,
    protocol: Protocol,
    *,
    column: str | None = None,
    num_folds: int = 5,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Make all folds of a protocol.

    Args:
        manifest: The N utterances of the store.
        rows: (R,) int64 labelled rows that take part, ascending.
        labels: (N,) int64 class index of every row of the store.
        protocol: How to split.
        column: The column that the protocols "column" (default "fold") and "official" read.
        num_folds: Number of folds of "stratified", at least 3.
        seed: Seed of "stratified"; keep it over the seeds of an experiment, so that all are scored alike.

    Raises:
        InputError: The manifest lacks what the protocol needs, or has too few groups.
    """
    if protocol == "session":
        return _leave_one_out(rows, _groups(manifest, rows, "session", protocol), protocol)
    if protocol == "speaker":
        return _leave_one_speaker_out(manifest, rows)
    if protocol == "column":
        return _leave_one_out(rows, _groups(manifest, rows, column or "fold", protocol), protocol)
    if protocol == "official":
        several = ["split"] if "split" in manifest else official_columns(manifest) or ["split"]
        columns = several if column is None else [column]
        return tuple(_official(rows, _groups(manifest, rows, name, protocol), name) for name in columns)
    return _stratified(rows, labels[rows], num_folds, seed)


def official_columns(manifest: pd.DataFrame) -> list[str]:
    """List the columns split_<fold> in the order of their folds.

    Examples:
        >>> official_columns(pd.DataFrame(columns=["split_10", "split_9", "split", "split_x"]))
        ['split_9', 'split_10']
    """
    numbered = [(int(match[1]), match[0]) for c in manifest.columns if (match := _NUMBERED.fullmatch(str(c)))]
    return [column for _, column in sorted(numbered)]


def choose_fold(folds: Sequence[Split], fold: int) -> Split:
    """Pick a fold by its number, from 0.

    Raises:
        InputError: No such fold.
    """
    if not 0 <= fold < len(folds):
        valid = "0" if len(folds) == 1 else f"0 to {len(folds) - 1}"
        raise InputError(f"fold {fold} is out of range", remedy=f"set `fold` to {valid}")
    return folds[fold]


def audit_folds(
    folds: Sequence[Split],
    manifest: pd.DataFrame,
    rows: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    cross_validation: bool,
) -> None:
    """Check that no fold leaks, that the folds cover the corpus and that every class can be learnt.

    Args:
        folds: All folds of a protocol.
        manifest: The N utterances of the store.
        rows: (R,) int64 labelled rows that take part.
        labels: (N,) int64 class index of every row of the store.
        class_names: The C classes.
        cross_validation: The test parts of all folds have to cover `rows` exactly once.

    Raises:
        InputError: An utterance or a known speaker in two parts of a fold, an empty part, a class without
            training utterances, or a labelled utterance that is tested never or twice; the message names
            the offenders.
    """
    ids, speakers = (text_column(manifest, name, purpose="fold audit") for name in ("utterance_id", "speaker"))
    for number, split in enumerate(folds):
        parts = {"training": split.train, "validation": split.val, "test": split.test}
        for part, members in parts.items():
            if not len(members):
                raise InputError(f"fold {number}: no {part} utterance", remedy="relax `where` or change `protocol`")
        _check_disjoint(number, parts, ids, speakers)
        counts = np.bincount(labels[split.train], minlength=len(class_names))
        if absent := [name for name, count in zip(class_names, counts, strict=True) if not count]:
            raise InputError(
                f"fold {number}: no training utterance of class {name_some(absent)}",
                remedy="leave the class out of `classes`, relax `where` or change `protocol`",
            )
    if cross_validation:
        _check_partition(folds, rows, ids)


def _check_disjoint(number: int, parts: dict[str, np.ndarray], ids: np.ndarray, speakers: np.ndarray) -> None:
    for first, second in (("training", "validation"), ("training", "test"), ("validation", "test")):
        if common := set(ids[parts[first]]) & set(ids[parts[second]]):
            raise InputError(
                f"fold {number}: utterances in both {first} and {second}: {name_some(common)}",
                remedy="put every utterance into one part",
            )
        if common := (set(speakers[parts[first]]) & set(speakers[parts[second]])) - {""}:
            raise InputError(
                f"fold {number}: speakers in both {first} and {second}: {name_some(common)}",
                remedy='use protocol "session" or "speaker", or empty the column speaker of the manifest if '
                "the corpus shares speakers by design",
            )


def _check_partition(folds: Sequence[Split], rows: np.ndarray, ids: np.ndarray) -> None:
    tested = np.bincount(np.concatenate([split.test for split in folds]), minlength=len(ids))
    expected = np.bincount(rows, minlength=len(ids))
    for wrong, what in ((tested > expected, "more than once"), (tested < expected, "in no fold")):
        if wrong.any():
            folds_of = [str(n) for n, split in enumerate(folds) if wrong[split.test].any()]
            raise InputError(
                f"utterances tested {what}: {name_some(ids[wrong])}"
                + (f" (folds {', '.join(folds_of)})" if folds_of else ""),
                remedy="mend the fold column, rebuild official folds by `cmarr prepare --repair-folds`, or use another "
                "`protocol`",
            )


def _leave_one_out(rows: np.ndarray, groups: np.ndarray, protocol: Protocol) -> tuple[Split, ...]:
    names = sorted(set(groups), key=_natural)
    if len(names) < 3:
        raise InputError(
            f"protocol {protocol!r}: training, validation and test need 3 groups, found {name_some(names)}",
            remedy='relax `where` or use protocol "stratified"',
        )
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return tuple(_split(rows, groups == name, groups == following[name]) for name in names)


def _leave_one_speaker_out(manifest: pd.DataFrame, rows: np.ndarray) -> tuple[Split, ...]:
    sessions = _groups(manifest, rows, "session", "speaker")
    speakers = _groups(manifest, rows, "speaker", "speaker")
    pairs = sorted(set(zip(sessions, speakers, strict=True)))
    folds = []
    for session, speaker in pairs:
        inside = sessions == session
        test = inside & (speakers == speaker)
        if (inside == test).all():
            raise InputError(
                f"protocol 'speaker': {speaker} is the only speaker of session {session}, nobody is left to "
                "validate on",
                remedy='relax `where` or use protocol "session"',
            )
        folds.append(_split(rows, test, inside & ~test))
    return tuple(folds)


def _official(rows: np.ndarray, parts: np.ndarray, column: str) -> Split:
    if unknown := set(parts) - {"train", "val", "test"}:
        raise InputError(
            f"column {column!r} of the manifest holds {name_some(unknown)}",
            remedy="write train, val or test into it",
        )
    return _split(rows, parts == "test", parts == "val")


def _stratified(rows: np.ndarray, labels: np.ndarray, num_folds: int, seed: int) -> tuple[Split, ...]:
    if num_folds < 3:
        raise InputError(f"{num_folds} stratified folds", remedy="set `num_folds` to 3 or more")
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Dealing on from class to class, not anew for each, keeps the folds equally large as well.
    fold_of = np.empty(len(rows), dtype=np.int64)
    fold_of[by_class] = np.arange(len(rows)) % num_folds
    return tuple(_split(rows, fold_of == k, fold_of == (k + 1) % num_folds) for k in range(num_folds))


def _split(rows: np.ndarray, test: np.ndarray, val: np.ndarray) -> Split:
    return Split(train=rows[~test & ~val], val=rows[val], test=rows[test])


def _groups(manifest: pd.DataFrame, rows: np.ndarray, column: str, protocol: Protocol) -> np.ndarray:
    """Read the column that a protocol groups by, (R,) text, every cell filled."""
    groups: np.ndarray = text_column(manifest, column, purpose=f"protocol {protocol!r}")[rows]
    if (empty := groups == "").any():
        ids = manifest["utterance_id"].to_numpy()[rows]
        raise InputError(
            f"protocol {protocol!r}: column {column!r} is empty for {name_some(ids[empty])}",
            remedy="fill the column in the manifest or use another `protocol`",
        )
    return groups


def _natural(name: str) -> tuple[int, int, str]:
    """Order numbers as numbers and before words, so that fold 10 comes after fold 9."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
