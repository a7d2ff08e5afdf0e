"""Columns of the manifest as text, filters on them, and names of offenders in messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from cmarr_lightning.errors import InputError

__all__ = ["matching_rows", "name_some", "text_column"]

_NAMED = 5


def text_column(manifest: pd.DataFrame, column: str, *, purpose: str) -> np.ndarray:
    """Read a column as text, "" where a cell is empty.

    Args:
        manifest: The N utterances.
        column: Its name.
        purpose: What needs the column; begins the message.

    Returns:
        (N,) object array of str.

    Raises:
        InputError: No such column.
    """
    if column not in manifest:
        raise InputError(
            f"{purpose}: the manifest has no column {column!r}",
            remedy=f"use one of its columns {', '.join(manifest.columns)}",
        )
    cells = manifest[column]
    text: np.ndarray = cells.astype(str).where(cells.notna(), "").to_numpy(dtype=object)
    return text


def matching_rows(manifest: pd.DataFrame, where: Mapping[str, str | list[str]]) -> np.ndarray:
    """Find the utterances that hold one of the wanted values in every column.

    Args:
        manifest: The N utterances.
        where: Per column the value, or the list of values, as text.

    Returns:
        (R,) int64, ascending.

    Raises:
        InputError: No such column, or no utterance is left.
    """
    keep = np.ones(len(manifest), dtype=bool)
    for column, wanted in where.items():
        values = [wanted] if isinstance(wanted, str) else wanted
        keep &= np.isin(text_column(manifest, column, purpose="`where`"), values)
        if not keep.any():
            raise InputError(
                f"`where`: no utterance is left after {column} = {', '.join(values)}",
                remedy=f"relax `where`; the column holds {name_some(set(manifest[column]))}",
            )
    return np.flatnonzero(keep)


def name_some(names: Iterable[object]) -> str:
    """List the first five names in order and count the rest.

    Examples:
        >>> name_some({"b", "a"})
        'a, b'
        >>> name_some(range(8))
        '0, 1, 2, 3, 4 and 3 more'
    """
    ordered = sorted(map(str, names))
    rest = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
