"""The files that one evaluation leaves: scores, confusion counts and picture, predictions, what was scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cmarr_lightning.analysis.plots import plot_confusions
from cmarr_lightning.analysis.tables import MISSING_MEAN, confusion_table, score_table
from cmarr_lightning.files import replacing

__all__ = [
    "ABOUT",
    "CONFUSION",
    "NOISE",
    "PREDICTIONS",
    "SCORES",
    "prediction_table",
    "title_of",
    "write_evaluation",
    "write_noisy",
]

ABOUT = "about.json"
CONFUSION = "confusion.csv"
NOISE = "noise"
PREDICTIONS = "predictions.parquet"
SCORES = "scores.csv"


def write_evaluation(
    folder: Path,
    confusion: Tensor,
    conditions: Sequence[str],
    class_names: Sequence[str],
    *,
    num_incomplete: int,
    about: Mapping[str, Any],
    predictions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write `scores.csv`, `confusion.csv`, `confusion.png`, `predictions.parquet` and `about.json`, each at once.

    Args:
        folder: Where to; made if it is not there.
        confusion: (K, C, C) counts, rows = true classes.
        conditions: K names.
        class_names: C names.
        num_incomplete: How many of the conditions, from the first on, are incomplete.
        about: What was scored: data, data_checksum, synthetic, fold, ...
        predictions: A `prediction_table`; None leaves the file out.

    Returns:
        The `score_table` that was written.
    """
    scores = score_table(confusion, conditions, num_incomplete)
    with replacing(folder / SCORES) as path:
        scores.to_csv(path, index=False, float_format="%.6f")
    with replacing(folder / CONFUSION) as path:
        confusion_table(confusion, conditions, class_names).to_csv(path, index=False)
    with replacing(folder / "confusion.png") as path:
        plot_confusions(confusion.numpy(), conditions, class_names, title_of(about)).savefig(path)
    if predictions is not None:
        with replacing(folder / PREDICTIONS) as path:
            predictions.to_parquet(path, index=False)
    with replacing(folder / ABOUT) as path:
        path.write_text(json.dumps(dict(about), indent=2), encoding="utf-8")
    return scores


def write_noisy(
    folder: Path, confusion: Mapping[str, Tensor], conditions: Sequence[str], class_names: Sequence[str]
) -> pd.DataFrame:
    """Write `noise/scores.csv` and `noise/confusion.csv`: every condition under every noise, `<condition>@<noise>`.

    Args:
        folder: That of the evaluation.
        confusion: Per name of a noise (K, C, C) counts.
        conditions: K names, the complete one last.
        class_names: C names.

    Returns:
        The scores: condition, war, uar, f1, n.
    """
    names = {noise: [f"{name}@{noise}" for name in conditions] for noise in confusion}
    tables = []
    for noise, counts in confusion.items():
        table = score_table(counts, names[noise], len(conditions) - 1)
        table["condition"] = table["condition"].replace(MISSING_MEAN, f"{MISSING_MEAN}@{noise}")
        tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    with replacing(folder / NOISE / SCORES) as path:
        scores.to_csv(path, index=False, float_format="%.6f")
    counted = [confusion_table(counts, names[noise], class_names) for noise, counts in confusion.items()]
    with replacing(folder / NOISE / CONFUSION) as path:
        pd.concat(counted, ignore_index=True).to_csv(path, index=False)
    return scores


def title_of(about: Mapping[str, Any]) -> str:
    """Name an evaluation in a heading; synthetic data are always called so."""
    title = f"{about['stage']}: {about.get('data', '?')}, fold {about.get('fold', '?')}"
    return f"{title} (synthetic data)" if about.get("synthetic") else title


def prediction_table(
    utterances: pd.DataFrame,
    conditions: Iterable[str],
    class_names: Sequence[str],
    true: Iterable[int],
    predicted: Iterable[int],
    probabilities: Tensor | None = None,
) -> pd.DataFrame:
    """Make the table of predictions: utterance_id, session, speaker, condition, true, predicted, p_<class>.

    Args:
        utterances: R rows of a manifest, one per prediction; session and speaker are "" where it has none.
        conditions: R names.
        class_names: C names.
        true: R class indices.
        predicted: R class indices.
        probabilities: (R, C); None where the method has none, then there are no columns p_<class>.
    """
    table = pd.DataFrame({"utterance_id": utterances["utterance_id"].to_numpy()})
    for column in ("session", "speaker"):
        table[column] = utterances[column].astype(str).to_numpy() if column in utterances else ""
    table["condition"] = list(conditions)
    table["true"] = [class_names[c] for c in true]
    table["predicted"] = [class_names[c] for c in predicted]
    if probabilities is not None:
        for c, name in enumerate(class_names):
            table[f"p_{name}"] = probabilities[:, c].numpy()
    return table
