"""Pictures of confusion matrices; each function returns a figure and shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmarr_lightning.analysis.style import folded, grid

__all__ = ["plot_confusion_differences", "plot_confusions"]

_INCHES_PER_CLASS = 0.55


def plot_confusions(
    confusion: np.ndarray, conditions: Sequence[str], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Draw one confusion matrix per condition.

    Colour and large number: share of the true class (rows add up to 100 %). Small number: count of utterances.

    Args:
        confusion: (K, C, C) counts, rows = true classes.
        conditions: K names.
        class_names: C names.
        title: Above the whole figure.
    """
    figure, axes = _panels(len(conditions), class_names, title)
    colours = mpl.colormaps["Blues"]
    for axis, counts, name in zip(axes, confusion, conditions, strict=True):
        share = _shares(counts)
        axis.imshow(share, vmin=0, vmax=1, cmap=colours)
        for (i, j), value in np.ndenumerate(share):
            text = f"{100 * value:.0f} %\n{counts[i, j]:,}"
            _write(axis, i, j, text, white=value > 0.55)
        _label(axis, name, class_names)
    return figure


def plot_confusion_differences(
    first: np.ndarray, second: np.ndarray, conditions: Sequence[str], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Draw how the shares of each true class differ: second - first, in percentage points.

    Args:
        first: (K, C, C) counts, rows = true classes.
        second: (K, C, C) counts.
        conditions: K names.
        class_names: C names.
        title: Above the whole figure.
    """
    figure, axes = _panels(len(conditions), class_names, title)
    differences = _shares(second) - _shares(first)
    limit = max(0.01, float(np.abs(differences).max()))
    for axis, values, name in zip(axes, differences, conditions, strict=True):
        axis.imshow(values, vmin=-limit, vmax=limit, cmap=mpl.colormaps["PuOr"])
        for (i, j), value in np.ndenumerate(values):
            _write(axis, i, j, f"{100 * value:+.1f}", white=abs(value) > 0.7 * limit)
        _label(axis, name, class_names)
    return figure


def _panels(count: int, class_names: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    side = max(3.2, 1.0 + _INCHES_PER_CLASS * len(class_names))
    figure, axes = grid(count, side, side)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, axes


def _shares(counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return shares


def _write(axis: Axes, row: int, column: int, text: str, *, white: bool) -> None:
    colour = "white" if white else "black"
    axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _label(axis: Axes, name: str, class_names: Sequence[str]) -> None:
    axis.set_title(folded(name), fontsize=9)
    axis.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(class_names)), class_names, fontsize=7)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true", fontsize=8)
