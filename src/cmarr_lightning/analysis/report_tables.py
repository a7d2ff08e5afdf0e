"""The tables of a report, for HTML, Markdown and LaTeX alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmarr_lightning.analysis.comparison import ALPHA, METRICS, Comparison
from cmarr_lightning.analysis.reconstruction import MEASURES

__all__ = [
    "Cell",
    "ReportTable",
    "calibration_table",
    "mean_table",
    "method_table",
    "reconstruction_table",
    "robustness_table",
    "score_table",
    "test_table",
]

_MEASURE_NAMES = ("relative MSE", "cosine", "MMD", "probe UAR %, true", "probe UAR %, recovered")
_MINUS = "\u2212"


class Cell(NamedTuple):
    """What stands in a table."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table with its caption.

    Attributes:
        key: Short name for references.
        caption: What it shows, of which data.
        header: Names of the columns.
        rows: Cells, as many as columns each.
        names: How many columns, from the first on, hold names; the others hold numbers.
    """

    key: str
    caption: str
    header: list[str]
    rows: list[list[Cell]]
    names: int = 1


def score_table(comparison: Comparison, metric: str) -> ReportTable:
    """Write the pooled scores with intervals, conditions x methods."""
    rows = []
    for condition, per_method in _by_condition(comparison.scores, metric):
        cells = [_score(per_method[method]) for method in comparison.methods]
        n = max(int(row["n"]) for row in per_method.values())
        rows.append([Cell(condition), *cells, Cell(f"{n:,}")])
    drawn = comparison.scores.iloc[0]
    caption = f"Pooled {METRICS[metric]}, % on {comparison.title}"
    if comparison.scores["low"].notna().any():
        caption += f", with 95 % bootstrap intervals ({drawn['clusters']} {drawn['cluster']}s resampled)"
    caption += "."
    if len(comparison.methods) > 1:
        caption += (
            f" Bold: the best method of a row, where the paired test tells it from every other one (p < {ALPHA:g})."
            if not comparison.tests.empty
            else " No method is bold: without predictions of all of them there is no paired test."
        )
    return ReportTable(metric, caption, ["condition (present)", *comparison.methods, "N"], rows)


def mean_table(comparison: Comparison, metric: str) -> ReportTable:
    """Write mean and standard deviation over folds and seeds, conditions x methods."""
    rows = [
        [Cell(condition), *(Cell(_spread(per_method[method])) for method in comparison.methods)]
        for condition, per_method in _by_condition(comparison.scores, metric)
    ]
    caption = f"Mean ± standard deviation of {METRICS[metric]}, % over folds and seeds on {comparison.title}."
    return ReportTable(f"mean-{metric}", caption, ["condition (present)", *comparison.methods], rows)


def test_table(comparison: Comparison, metric: str) -> ReportTable | None:
    """Write how far each further method is from the first one; None where nothing could be tested."""
    if comparison.tests.empty:
        return None
    first, *others = comparison.methods
    rows = [
        [Cell(condition), *(_difference(per_method[other]) for other in others)]
        for condition, per_method in _by_condition(comparison.tests, metric)
    ]
    caption = (
        f"Difference of {METRICS[metric]} to {first} on {comparison.title}, percentage points [95 % interval], p of "
        "the paired test that swaps the methods' predictions cluster by cluster, not corrected for the number of "
        f"conditions; bold where p < {ALPHA:g}."
    )
    return ReportTable(f"test-{metric}", caption, ["condition (present)", *others], rows)


def calibration_table(comparison: Comparison, errors: Mapping[str, pd.Series[float]]) -> ReportTable:
    """Write the expected calibration errors, conditions x methods."""
    conditions = comparison.first.all_conditions
    rows = [[Cell(c), *(Cell(f"{100 * errors[m][c]:.1f}") for m in errors)] for c in conditions]
    caption = f"Expected calibration error, % (15 bins, all folds and seeds together) on {comparison.title}."
    return ReportTable("calibration", caption, ["condition (present)", *errors], rows)


def reconstruction_table(comparison: Comparison, measured: Mapping[str, pd.DataFrame]) -> ReportTable:
    """Write the quality of the reconstructions: mean ± standard deviation over the folds of one seed."""
    header = ["missing", "present", *(["method"] if len(comparison.methods) > 1 else []), *_MEASURE_NAMES]
    table = pd.concat([one.assign(method=method) for method, one in measured.items()], ignore_index=True)
    keys = ["missing", "condition", "method"]
    rows = []
    for key, part in table.groupby(keys, sort=False):
        names = list(key)[: len(header) - len(MEASURES)]
        cells = [
            _mean_and_spread(part[m], 100 if m.startswith("probe") else 1, 1 if m.startswith("probe") else 2)
            for m in MEASURES
        ]
        rows.append([*map(Cell, map(str, names)), *map(Cell, cells)])
    rows.sort(key=lambda row: comparison.first.about["modalities"].index(row[0].text))
    folds = len(table["fold"].unique())
    caption = (
        f"Reconstructed against true representations of the test utterances on {comparison.title}: mean ± standard "
        f"deviation over {folds} fold{'s' if folds > 1 else ''} of one seed."
    )
    return ReportTable("reconstruction", caption, header, rows, names=len(header) - len(MEASURES))


def robustness_table(
    comparison: Comparison, noise: Mapping[str, pd.DataFrame], missing: Mapping[str, pd.DataFrame]
) -> ReportTable:
    """Write the pooled UAR with everything present under each noise, and at each random missing rate."""
    complete = comparison.first.conditions[-1]
    columns = {}
    for method in comparison.methods:
        values: dict[str, float] = {}
        if method in noise:
            table = noise[method]
            table = table[(table["condition"] == complete) & (table["metric"] == "uar")]
            values |= {f"{r['noise']}, level {r['level']:g}": r["value"] for r in table.to_dict("records")}
        if method in missing:
            table = missing[method][missing[method]["metric"] == "uar"]
            values |= {f"missing rate {r['rate']:g}": r["value"] for r in table.to_dict("records")}
        columns[method] = values
    names = dict.fromkeys(name for values in columns.values() for name in values)
    rows = [
        [Cell(name), *(Cell(f"{100 * values[name]:.1f}" if name in values else "-") for values in columns.values())]
        for name in sorted(names, key=lambda name: name.startswith("missing"))
    ]
    tests = [f"with noise in everything that is present ({complete})"] if noise else []
    tests += ["with a random share of all modalities missing"] if missing else []
    caption = f"Pooled UAR, % on {comparison.title} {', and '.join(tests)}."
    return ReportTable("robustness", caption, ["test", *columns], rows)


def method_table(comparison: Comparison) -> ReportTable:
    """Write where the results come from."""
    rows = []
    for label, results in comparison.methods.items():
        about = results.about
        commits = sorted({str(run.about["commit"] or "unknown")[:12] for run in results.runs})
        numbers = [_numbers(getattr(run, key) for run in results.runs) for key in ("fold", "seed")]
        unfinished = ", ".join(path.name for path in results.unfinished) or "none"
        cells = [label, str(results.folder), *numbers, str(len(results.runs)), unfinished, ", ".join(commits)]
        rows.append([Cell(text) for text in [*cells, str(about["data_checksum"])[:12]]])
    header = [
        "method",
        "folder",
        "folds",
        "seeds",
        "runs",
        "left out (unfinished or damaged)",
        "commit",
        "data checksum",
    ]
    return ReportTable("methods", f"Where the results come from. Data: {comparison.title}.", header, rows, names=8)


def _by_condition(table: pd.DataFrame, metric: str) -> list[tuple[str, dict[str, dict[Any, Any]]]]:
    """List the conditions, each with the rows of one metric by method."""
    chosen = table[table["metric"] == metric]
    return [
        (str(condition), {row["method"]: row for row in part.to_dict("records")})
        for condition, part in chosen.groupby("condition", sort=False)
    ]


def _score(row: Mapping[Any, Any]) -> Cell:
    if np.isnan(row["pooled"]):
        return Cell("-")
    text = f"{100 * row['pooled']:.1f}"
    if not np.isnan(row["low"]):
        text += f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return Cell(text, bool(row["supported"]))


def _spread(row: Mapping[Any, Any]) -> str:
    text = f"{100 * row['mean']:.1f}"
    return text if np.isnan(row["std"]) else f"{text} ± {100 * row['std']:.1f}"


def _difference(row: Mapping[Any, Any]) -> Cell:
    interval = "" if np.isnan(row["low"]) else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    p = "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.3f}"
    text = f"{100 * row['difference']:+.1f}{interval}, {p}"
    return Cell(text.replace("-", _MINUS), bool(row["p"] < ALPHA))


def _mean_and_spread(values: pd.Series[float], factor: float, digits: int) -> str:
    mean, spread = factor * values.mean(), factor * values.std()
    text = f"{mean:.{digits}f}" if np.isnan(spread) else f"{mean:.{digits}f} ± {spread:.{digits}f}"
    return text.replace("-", _MINUS)


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
