"""Labels of utterances: from a column of the manifest to class indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from cmarr_lightning.data.columns import text_column
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError

__all__ = ["check_labels", "read_labels"]


def read_labels(store: FeatureStore, column: str, merge: Mapping[str, str]) -> np.ndarray:
    """Read (N,) label names, "" = none, renamed by `merge`.

    Raises:
        InputError: The manifest has no such column.
    """
    text = text_column(store.manifest, column, purpose="`label_column`")
    return np.array([merge.get(label, label) for label in text], dtype=object)


def check_labels(
    store: FeatureStore,
    labels: np.ndarray,
    rows: np.ndarray,
    class_names: Sequence[str],
    others: Set[str] | None,
) -> None:
    """Refuse labels that are no class, or warn of them.

    Args:
        store: Where the labels come from.
        labels: (N,) names of all rows, "" = none.
        rows: The rows that take part.
        class_names: The classes.
        others: Labels that are known to lie outside the task; None: every label must be a class. Utterances of
            other spellings have no label either, which a warning says: a corpus must not shrink unnoticed.

    Raises:
        InputError: A label that is none of the classes, or fewer than two classes with utterances.
    """
    unknown = [row for row in rows if labels[row] and labels[row] not in class_names]
    if unknown and others is None:
        utterance = store.manifest["utterance_id"].iloc[unknown[0]]
        raise InputError(
            f"utterance {utterance!r}: label {labels[unknown[0]]!r} is none of {', '.join(class_names)}",
            remedy="add it to `classes`, rename it with `merge` or filter it out with `where`",
        )
    odd = Counter(labels[row] for row in unknown if labels[row] not in (others or ()))
    counted = ", ".join(f"{label!r} {count:,}" for label, count in odd.most_common(8))
    found = {labels[row] for row in rows} & set(class_names)
    if len(found) < 2:
        labelled = sum(labels[row] in class_names for row in rows)
        raise InputError(
            f"{store.path}: {labelled} labelled utterances of the classes {', '.join(class_names) or 'none'}"
            + (f"; the labels are {counted}" if odd else ""),
            remedy="spell the labels like the classes, or use a FeatureDataModule with `label_column`, `classes` and"
            " `merge` so that at least two classes have utterances",
        )
    if odd:
        rank_zero_warn(
            f"{store.path}: utterances with the labels {counted} are left out: none of {', '.join(class_names)}, nor"
            " another emotion that is known by that spelling. Remedy: rename them in the metadata and prepare the store"
            " again, or use a FeatureDataModule with `merge`."
        )
