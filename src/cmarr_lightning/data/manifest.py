"""The table of utterances: its columns, how it is read and what makes it valid."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from cmarr_lightning.errors import InputError

__all__ = ["STANDARD_COLUMNS", "read_manifest", "validate_manifest"]

STANDARD_COLUMNS = ("utterance_id", "dialogue_id", "session", "speaker", "gender", "label")
"""The columns every store has, as text; "" = unknown, and for the label: outside the task."""


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read the table of utterances from a CSV file.

    Every cell is kept as the text that stands in the file, so that a speaker "01" stays "01".

    Args:
        path: A UTF-8 file with commas between the columns, one header line and a column utterance_id.

    Returns:
        N rows in the order of the file; the `STANDARD_COLUMNS` first, "" where the file has none of them.

    Raises:
        InputError: The file cannot be read, is empty, has ragged lines, or `validate_manifest` refuses it.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {_line_of_byte(path)}: not UTF-8 text ({error.reason})", remedy="save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}", remedy="mend the quoting") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", remedy="check the path") from error
    if not lines:
        raise InputError(f"{path}: empty file", remedy="write a header line and one line per utterance")
    (_, header), body = lines[0], lines[1:]
    _check_header(header, str(path))
    for line, cells in body:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(header)}",
                remedy="put cells that hold a comma into double quotes",
            )
    table = pd.DataFrame([cells for _, cells in body], columns=header, dtype=str)
    return _validated(table, str(path), lambda row: f"line {body[row][0]}")


def validate_manifest(table: pd.DataFrame, *, origin: str) -> pd.DataFrame:
    """Check a table of utterances and bring it into the form that a store keeps.

    Args:
        table: N >= 1 rows with a column utterance_id of unique, non-empty texts without path separators.
        origin: What the table was made from; begins every message.

    Returns:
        A new table, rows unchanged and numbered from 0: the `STANDARD_COLUMNS` first and as text, then all
        other columns as they were.

    Raises:
        InputError: No row, no utterance_id, a repeated column, or an id that is empty, repeated or unsafe as
            the name of a file.
    """
    _check_header([str(column) for column in table.columns], origin)
    return _validated(table, origin, lambda row: f"row {row}")


def _validated(table: pd.DataFrame, origin: str, place: Callable[[int], str]) -> pd.DataFrame:
    if table.empty:
        raise InputError(f"{origin}: no utterances", remedy="write one line per utterance")
    _check_ids(table["utterance_id"].tolist(), origin, place)
    standard = {column: _as_text(table, column) for column in STANDARD_COLUMNS}
    further = {str(c): table[c].reset_index(drop=True) for c in table.columns if c not in STANDARD_COLUMNS}
    return pd.DataFrame({**standard, **further})


def _as_text(table: pd.DataFrame, column: str) -> pd.Series[str]:
    if column not in table:
        return pd.Series([""] * len(table), dtype=str)
    cells = table[column].reset_index(drop=True)
    return cells.where(cells.notna(), "").astype(str)


def _check_header(columns: Sequence[str], origin: str) -> None:
    if "utterance_id" not in columns:
        raise InputError(
            f"{origin}: no column utterance_id among {', '.join(map(repr, columns)) or 'none'}",
            remedy="name the column of the ids utterance_id and separate columns by commas",
        )
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise InputError(f"{origin}: column {repeated[0]!r} stands twice", remedy="rename one of the two")
    if "" in columns:
        raise InputError(f"{origin}: column {columns.index('') + 1} has no name", remedy="name it or drop it")


def _check_ids(ids: Sequence[object], origin: str, place: Callable[[int], str]) -> None:
    seen: dict[str, int] = {}
    for row, utterance in enumerate(ids):
        where = f"{origin}, {place(row)}"
        if not isinstance(utterance, str):
            raise InputError(f"{where}: utterance_id {utterance!r} is not text", remedy="write ids as text")
        if not utterance:
            raise InputError(f"{where}: empty utterance_id", remedy="give every utterance an id")
        if utterance in seen:
            raise InputError(
                f"{where}: utterance {utterance!r} stands already in {place(seen[utterance])}",
                remedy="give every utterance an id of its own",
            )
        if fault := _fault_of(utterance):
            raise InputError(f"{where}: utterance id {utterance!r} has {fault}", remedy="rename the utterance")
        seen[utterance] = row


def _fault_of(utterance: str) -> str | None:
    """Say what makes an id unsafe as a file name, None if nothing does."""
    if "/" in utterance or "\\" in utterance:
        return "a path separator"
    if ".." in utterance or utterance == ".":
        return "dots that could lead out of a folder"
    if utterance != utterance.strip() or not utterance.isprintable():
        return "blanks around it or control characters"
    return None


def _line_of_byte(path: Path) -> int:
    """Find the first line that is not UTF-8; the position in a decoding error counts from its buffer only."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return number
    return 0
