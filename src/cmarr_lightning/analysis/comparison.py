"""Methods beside each other: pooled scores with intervals, and which lead the paired test supports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.statistics import paired_test, refuse_unlike, summarize
from cmarr_lightning.analysis.style import look_of
from cmarr_lightning.errors import InputError

__all__ = ["ALPHA", "METRICS", "Comparison", "compare", "method_labels", "plot_scores"]

ALPHA = 0.05
"""Level of the paired tests."""
METRICS = {"war": "WAR", "uar": "UAR"}
"""Key -> name of the metrics that are reported."""


@dataclass(frozen=True)
class Comparison:
    """Results of the same rows of the same data.

    Attributes:
        methods: Label -> results, in the given order.
        scores: `summarize` of each, with `method` in front; `best` marks the highest pooled score of a condition and
            metric, `supported` a best one that the paired test tells from every other method (p < `ALPHA`).
        tests: `paired_test` of the first method against each other one, with `method` (the other one) in front.
    """

    methods: dict[str, ProtocolResults]
    scores: pd.DataFrame
    tests: pd.DataFrame

    @property
    def first(self) -> ProtocolResults:
        """The results named first."""
        return next(iter(self.methods.values()))

    @property
    def title(self) -> str:
        """Name of the data; synthetic ones are always called so."""
        about = self.first.about
        return f"{about['data']} (synthetic data)" if about["synthetic"] else str(about["data"])


def compare(results: Sequence[ProtocolResults]) -> Comparison:
    """Lay results beside each other. Without counts by cluster there are no intervals and no tests.

    Raises:
        InputError: The same folder twice, or different data, classes, conditions or rows.
    """
    for i, other in enumerate(results):
        if other.folder.resolve() in [one.folder.resolve() for one in results[:i]]:
            raise InputError(f"{other.folder}: named twice", remedy="name each folder once")
        if i:
            refuse_unlike(results[0], other)
    methods = dict(zip(method_labels(results), results, strict=True))
    tables = [
        summarize(one, intervals=one.has_clusters).assign(method=label).sort_values("metric", kind="stable")
        for label, one in methods.items()
    ]
    scores = pd.concat(tables, ignore_index=True)
    scores = scores[scores["metric"].isin(METRICS)].reset_index(drop=True)
    top = scores.groupby(["condition", "metric"])["pooled"].transform("max")
    scores["best"] = (len(results) > 1) & (scores["pooled"] == top)
    testable = len(results) > 1 and all(one.has_clusters for one in results)
    tests = _Tests(methods) if testable else None
    scores["supported"] = np.array(
        [row["best"] and tests is not None and tests.leads(row) for row in scores.to_dict("records")]
    )
    return Comparison(methods, scores, pd.DataFrame() if tests is None else tests.against_first())


def method_labels(results: Sequence[ProtocolResults]) -> list[str]:
    """Name each method; the folder is added where two have the same name."""
    names = [str(one.about["method"]) for one in results]
    again = Counter(names)
    labels = [
        f"{name} ({one.folder.name})" if again[name] > 1 else name for name, one in zip(names, results, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{name} ({one.folder})" for name, one in zip(names, results, strict=True)]
    return labels


def plot_scores(comparison: Comparison, metric: str, conditions: Sequence[str]) -> Figure:
    """Draw the pooled scores of all methods with their intervals, one line per condition.

    Args:
        comparison: The methods.
        metric: `war` or `uar`.
        conditions: Which, from top to bottom.
    """
    methods = list(comparison.methods)
    height = 1.2 + len(conditions) * (0.16 + 0.16 * len(methods))
    figure = Figure(figsize=(7.5, height), layout="constrained", dpi=120)
    axis = figure.subplots()
    table = comparison.scores[comparison.scores["metric"] == metric].set_index(["method", "condition"])
    step = 0.8 / max(len(methods), 1)
    for i, (method, look) in enumerate(look_of(methods).items()):
        rows = table.loc[[(method, condition) for condition in conditions]]
        value = 100 * rows["pooled"].to_numpy()
        limits = 100 * np.abs(rows[["low", "high"]].to_numpy().T - rows["pooled"].to_numpy())
        place = np.arange(len(conditions)) + (i - (len(methods) - 1) / 2) * step
        axis.errorbar(
            value, place, xerr=limits, fmt=look.marker, color=look.color, ms=5, capsize=2.5, lw=1.2, label=method
        )
    axis.set_yticks(range(len(conditions)), conditions, fontsize=8)
    axis.set_ylim(len(conditions) - 0.5, -0.5)
    axis.set_ylabel("modalities present", fontsize=9)
    axis.set_xlabel(f"pooled {METRICS[metric]}, % (95 % interval)", fontsize=9)
    axis.grid(axis="x", color="0.85", lw=0.6)
    for edge in np.arange(len(conditions) - 1) + 0.5:
        axis.axhline(edge, color="0.9", lw=0.6)
    figure.legend(loc="outside upper center", ncols=min(3, len(methods)), fontsize=8, frameon=False)
    return figure


class _Tests:
    """Paired tests, each computed when first needed: of many methods few ever lead."""

    def __init__(self, methods: dict[str, ProtocolResults]) -> None:
        self.methods = methods
        self._known: dict[tuple[str, str], pd.DataFrame] = {}

    def __call__(self, first: str, second: str) -> pd.DataFrame:
        """Get `paired_test` of two methods by condition and metric."""
        if (first, second) not in self._known:
            test = paired_test(self.methods[first], self.methods[second])
            self._known[first, second] = test.set_index(["condition", "metric"])
        return self._known[first, second]

    def leads(self, row: Mapping[Any, Any]) -> bool:
        """Tell whether the best method of a condition and metric is told from every other one."""
        key = (row["condition"], row["metric"])
        return all(float(self(*pair)["p"][key]) < ALPHA for pair in self._pairs(row["method"]))

    def against_first(self) -> pd.DataFrame:
        """Get the tests of the first method against each other one."""
        first, *others = self.methods
        tables = [self(first, other).reset_index().assign(method=other) for other in others]
        tests = pd.concat(tables, ignore_index=True)
        return tests[tests["metric"].isin(METRICS)].reset_index(drop=True)

    def _pairs(self, method: str) -> Iterable[tuple[str, str]]:
        order = list(self.methods)
        for other in order:
            if other != method:
                yield (method, other) if order.index(method) < order.index(other) else (other, method)
