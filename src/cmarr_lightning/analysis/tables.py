"""Tables of one run: scores and confusion counts per condition."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from cmarr_lightning.metrics import macro_f1, unweighted_average_recall, weighted_average_recall

__all__ = ["MISSING_MEAN", "confusion_table", "print_noisy", "print_scores", "score_table"]

MISSING_MEAN = "mean of incomplete"
"""Name of the row that averages the incomplete conditions."""


def score_table(confusion: Tensor, conditions: Sequence[str], num_incomplete: int) -> pd.DataFrame:
    """Compute WAR, UAR and macro F1 (in [0, 1]) and N per condition, then the mean of the incomplete ones.

    Args:
        confusion: (K, C, C) counts.
        conditions: K names.
        num_incomplete: How many of them, from the first on, are incomplete.
    """
    table = pd.DataFrame(
        {
            "condition": list(conditions),
            "war": weighted_average_recall(confusion).tolist(),
            "uar": unweighted_average_recall(confusion).tolist(),
            "f1": macro_f1(confusion).tolist(),
            "n": confusion.sum((-2, -1)).tolist(),
        }
    )
    if num_incomplete:
        head = table.iloc[:num_incomplete]
        mean = {"condition": MISSING_MEAN, **head[["war", "uar", "f1"]].mean(), "n": head["n"].iloc[0]}
        table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True)
    return table


def confusion_table(confusion: Tensor, conditions: Sequence[str], class_names: Sequence[str]) -> pd.DataFrame:
    """Write counts (K, C, C) as a tidy table: condition, true, predicted, count."""
    k, i, j = torch.meshgrid(*(torch.arange(n) for n in confusion.shape), indexing="ij")
    return pd.DataFrame(
        {
            "condition": [conditions[x] for x in k.flatten().tolist()],
            "true": [class_names[x] for x in i.flatten().tolist()],
            "predicted": [class_names[x] for x in j.flatten().tolist()],
            "count": confusion.flatten().tolist(),
        }
    )


def print_scores(table: pd.DataFrame, title: str) -> Table:
    """Lay out a `score_table` for the terminal, in per cent."""
    view = Table(title=title)
    view.add_column("condition (present)")
    for head in ("WAR %", "UAR %", "macro F1 %", "N"):
        view.add_column(head, justify="right")
    for row in table.to_dict("records"):
        if row["condition"] == MISSING_MEAN:
            view.add_section()
        scores = (f"{100 * row[key]:.1f}" for key in ("war", "uar", "f1"))
        view.add_row(row["condition"], *scores, f"{int(row['n']):,}")
    return view


def print_noisy(table: pd.DataFrame, complete: str) -> Table:
    """Lay out scores under noise for the terminal, in per cent: everything present, and the mean of incomplete.

    Args:
        table: Its conditions are called `<condition>@<noise>`.
        complete: Name of the complete condition.
    """
    view = Table(title="under noise")
    view.add_column("noise")
    for head in (complete, MISSING_MEAN):
        view.add_column(f"{head}: WAR / UAR %", justify="right")
    scores = {row["condition"]: f"{100 * row['war']:.1f} / {100 * row['uar']:.1f}" for row in table.to_dict("records")}
    for noise in dict.fromkeys(name.rpartition("@")[2] for name in scores):
        view.add_row(noise, *(scores.get(f"{head}@{noise}", "") for head in (complete, MISSING_MEAN)))
    return view
