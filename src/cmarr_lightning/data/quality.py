"""Do features and labels belong together? Class tables per split, lengths, and a linear probe per modality."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pandas as pd

from cmarr_lightning.data.columns import text_column
from cmarr_lightning.data.folds import official_columns
from cmarr_lightning.data.inspection import StoreReport, inspect_store
from cmarr_lightning.data.official_folds import audit_official_folds
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import not_installed

__all__ = ["Probe", "QualityReport", "assess_quality"]

_BINS = 20
_WITHOUT_SKLEARN = str(not_installed("scikit-learn", "baselines"))
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier tells the classes by one modality.

    Attributes:
        modality: Its name.
        uar: Unweighted average recall over all utterances that have it, each predicted by a classifier that
            was trained on other groups.
        chance: 1 / C.
        noise: Standard error of the UAR of a guesser.
        utterances: Labelled utterances that have the modality.
    """

    modality: str
    uar: float
    chance: float
    noise: float
    utterances: int

    @property
    def at_chance(self) -> bool:
        """True = not better than guessing by three standard errors."""
        return self.uar < self.chance + _STANDARD_ERRORS * self.noise


@dataclass(frozen=True)
class QualityReport:
    """What a user sees in one look.

    Attributes:
        contents: What the store holds.
        splits: Title -> utterances per part (rows) and label (columns).
        lengths: Sequence modality -> counts (bins,) and edges (bins + 1,) of frames per utterance.
        probes: One per modality; empty where they could not be computed.
        probe_groups: What was left out in turn for the probes, or why there are none.
        warnings: What the user should look into, one sentence each.
    """

    contents: StoreReport
    splits: dict[str, pd.DataFrame]
    lengths: dict[str, tuple[np.ndarray, np.ndarray]]
    probes: tuple[Probe, ...]
    probe_groups: str
    warnings: tuple[str, ...]


def assess_quality(store: FeatureStore) -> QualityReport:
    """Read a store completely and judge it.

    Args:
        store: The store; the probes need at least two labels.

    Raises:
        InputError: A file is not the one that was written (checksum).
    """
    contents = inspect_store(store)
    groups, described = _groups(store.manifest)
    probing = find_spec("sklearn") is not None
    probes = tuple(probe for m in store.modalities if (probe := _probe(store, m, groups))) if probing else ()
    unprobed = () if probing else (f"no probe tells whether features and labels belong together: {_WITHOUT_SKLEARN}",)
    lengths = {m: store.lengths(m) for m in store.modalities if store.kinds[m] == "sequence"}
    return QualityReport(
        contents=contents,
        splits=_splits(store.manifest),
        lengths={m: np.histogram(some[some > 0], bins=_BINS) for m, some in lengths.items()},
        probes=probes,
        probe_groups=described
        if probes
        else f"no probes: {'two labels with groups are missing' if probing else _WITHOUT_SKLEARN}",
        warnings=(
            *_value_warnings(contents),
            *audit_official_folds(store.manifest),
            *_probe_warnings(probes),
            *unprobed,
        ),
    )


def _splits(manifest: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Count classes per part of every split that the manifest has, and per session."""
    wanted = ["session", *(["split"] if "split" in manifest else []), *official_columns(manifest)]
    labels = pd.Series(text_column(manifest, "label", purpose="class tables"))
    cells = {column: text_column(manifest, column, purpose="class tables") for column in wanted}
    return {column: pd.crosstab(some, labels) for column, some in cells.items() if (some != "").any()}


def _groups(manifest: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Find what to leave out in turn: sessions, speakers, or five random fifths where neither is known."""
    labelled = text_column(manifest, "label", purpose="probe") != ""
    for column in ("session", "speaker"):
        cells = text_column(manifest, column, purpose="probe")
        if len(set(cells[labelled])) >= 3 and (cells[labelled] != "").all():
            return cells, f"one {column} left out in turn"
    return np.random.default_rng(0).integers(5, size=len(manifest)).astype(str), "a random fifth left out in turn"


def _probe(store: FeatureStore, modality: str, groups: np.ndarray) -> Probe | None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    labels = text_column(store.manifest, "label", purpose="probe")
    rows = np.flatnonzero((labels != "") & (store.lengths(modality) > 0))
    truth, groups = labels[rows].astype(str), groups[rows]
    classes, counts = np.unique(truth, return_counts=True)
    if len(classes) < 2 or len(set(groups)) < 2:
        return None
    means = _time_means(store, modality, rows)
    predicted = np.full(len(rows), "", dtype=truth.dtype)
    for group in sorted(set(groups)):
        test = groups == group
        if len(set(truth[~test])) < 2:
            continue
        scaler = StandardScaler().fit(means[~test])
        # Clipped, because single extreme values would otherwise carry the whole fit.
        train, left = (np.clip(scaler.transform(means[part]), -5, 5) for part in (~test, test))
        classifier = RidgeClassifier(alpha=float(means.shape[1]), class_weight="balanced").fit(train, truth[~test])
        predicted[test] = classifier.predict(left)
    recalls = [float((predicted[truth == name] == name).mean()) for name in classes]
    chance = 1 / len(classes)
    noise = float(np.sqrt((chance * (1 - chance) / counts).sum())) / len(classes)
    return Probe(modality, float(np.mean(recalls)), chance, noise, len(rows))


def _time_means(store: FeatureStore, modality: str, rows: np.ndarray) -> np.ndarray:
    """Average the frames of each utterance, NaN left aside: (R, D) float64, columns without a value 0."""
    values, offsets = store.values(modality), store.offsets(modality)
    means = np.empty((len(rows), store.dims[modality]))
    for position, row in enumerate(rows):
        frames = np.asarray(values[offsets[row] : offsets[row + 1]], dtype=np.float64)
        known = ~np.isnan(frames)
        with np.errstate(invalid="ignore"):
            means[position] = np.where(known, frames, 0).sum(axis=0) / known.sum(axis=0)
    known = ~np.isnan(means)
    column_means = np.where(known, means, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, means, column_means)


def _value_warnings(contents: StoreReport) -> list[str]:
    warnings = []
    for m in contents.modalities:
        for what, columns in (("constant", m.constant_columns), ("incomplete (NaN)", m.nan_columns)):
            if columns:
                warnings.append(f"{m.name}: {len(columns)} of {m.dim} columns are {what}")
        if m.missing:
            warnings.append(f"{m.name}: missing for {m.missing} of {contents.utterances} utterances")
    return warnings


def _probe_warnings(probes: tuple[Probe, ...]) -> list[str]:
    warnings = [
        f"{p.modality} is at chance: linear probe UAR {p.uar:.3f}, chance {p.chance:.3f}; are its rows in the order "
        "of the labels?"
        for p in probes
        if p.at_chance
    ]
    if probes and len(warnings) == len(probes):
        warnings.append("every modality is at chance: the labels look shuffled against the features")
    return warnings
