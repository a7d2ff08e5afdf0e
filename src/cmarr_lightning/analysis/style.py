"""How pictures look: colours that colour-blind readers tell apart, and never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["MOST_CONDITIONS", "Look", "folded", "grid", "look_of", "shown_conditions"]

MOST_CONDITIONS = 16
"""How many conditions a picture shows; all of up to four modalities. Tables hold every one."""

# Okabe and Ito (2008), without their yellow, which vanishes on paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")


class Look(NamedTuple):
    """How one method, class or modality is drawn."""

    color: str
    marker: str
    linestyle: str


def look_of(names: Sequence[str]) -> dict[str, Look]:
    """Give each name a colour, a marker and a kind of line."""
    return dict(zip(names, map(Look, cycle(_COLOURS), cycle(_MARKERS), cycle(_LINES)), strict=False))


def shown_conditions(conditions: Sequence[str], most: int = MOST_CONDITIONS) -> tuple[list[str], list[str]]:
    """Choose which conditions a picture shows where there are too many.

    The complete condition comes first, then single modalities, then those that lack one modality, then the others.

    Args:
        conditions: Names in the order of `all_conditions`, the complete one last.
        most: How many to show.

    Returns:
        Those shown and those left out, each in the given order.

    Examples:
        >>> shown_conditions(["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"], most=5)
        (['a', 'b', 'c', 'a+b', 'a+b+c'], ['a+c', 'b+c'])
    """
    sizes = {name: name.count("+") for name in conditions}
    full = max(sizes.values(), default=0)
    rank = {full: 0, 0: 1, full - 1: 2} if full else {0: 0}
    chosen = set(sorted(conditions, key=lambda name: rank.get(sizes[name], 3))[:most])
    return [name for name in conditions if name in chosen], [name for name in conditions if name not in chosen]


def folded(name: str, width: int = 28) -> str:
    r"""Break the name of a condition at a "+" where it is too long for its panel.

    Examples:
        >>> folded("audio+video+text", width=12)
        'audio+video\n+text'
    """
    lines = [""]
    for i, part in enumerate(name.split("+")):
        word = f"+{part}" if i else part
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def grid(count: int, width: float, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels.

    Args:
        count: How many.
        width: Of one, inches.
        height: Of one, inches.
        columns: At most so many beside each other.

    Returns:
        The figure and its axes, as many as asked for.
    """
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained", dpi=120)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]
