"""Known class totals of a whole corpus: the check that catches labels in the wrong order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError

__all__ = ["IEMOCAP_TOTALS", "MSP_IMPROV_TOTALS", "check_totals"]

IEMOCAP_TOTALS = {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}
"""Four-class utterances of IEMOCAP, happy with excited."""

MSP_IMPROV_TOTALS = {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885}
"""Four-class utterances of MSP-IMPROV."""


def check_totals(store: FeatureStore, labels: np.ndarray, totals: Mapping[str, int]) -> None:
    """Compare the class totals with the known ones if the store holds the whole corpus.

    Feature folders of several projects carry class numbers without names, and their orders differ.

    Args:
        store: Where the labels come from.
        labels: (N,) names of all rows; others than those of `totals` do not count.
        totals: Utterances per class of the whole corpus.

    Raises:
        InputError: As many labelled utterances as the corpus has, but other class totals.
    """
    counts = Counter(label for label in labels if label in totals)
    if counts.total() == sum(totals.values()) and counts != totals:
        found = ", ".join(f"{name} {counts[name]}" for name in totals)
        known = ", ".join(f"{name} {count}" for name, count in totals.items())
        raise InputError(
            f"{store.path}: class totals {found}, but the corpus has {known}; the labels look misordered",
            remedy="correct the class names when preparing the store",
        )
