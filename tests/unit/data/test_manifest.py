"""The table of utterances: what is read, what is refused, and what the message says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cmarr_lightning.data.manifest import STANDARD_COLUMNS, read_manifest, validate_manifest
from cmarr_lightning.errors import InputError


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "metadata.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_cells_keep_the_text_of_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "take,utterance_id,speaker,label\n007,u1,01,NA\n1.50,u2,02,\n")
    table = read_manifest(path)
    assert table["take"].tolist() == ["007", "1.50"]
    assert table["speaker"].tolist() == ["01", "02"]
    assert table["label"].tolist() == ["NA", ""]


def test_standard_columns_come_first_and_are_empty_where_unknown(tmp_path: Path) -> None:
    table = read_manifest(_write(tmp_path, "take,utterance_id\n1,u1\n"))
    assert tuple(table.columns) == (*STANDARD_COLUMNS, "take")
    assert table.loc[0, ["dialogue_id", "session", "speaker", "gender", "label"]].tolist() == [""] * 5


def test_byte_order_mark_blank_lines_and_quoted_commas_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path, b'\xef\xbb\xbfutterance_id,transcript\r\nu1,"well, yes"\r\n\r\nu2,"two\nlines"\r\n')
    table = read_manifest(path)
    assert table["utterance_id"].tolist() == ["u1", "u2"]
    assert table["transcript"].tolist() == ["well, yes", "two\nlines"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty file"),
        ("utterance_id,label\n", "no utterances"),
        ("id,label\nu1,sad\n", "no column utterance_id among 'id', 'label'"),
        ("utterance_id;label\nu1;sad\n", "separate columns by commas"),
        ("utterance_id,label,label\nu1,sad,sad\n", "'label' stands twice"),
        ("utterance_id,\nu1,sad\n", "column 2 has no name"),
        ("utterance_id,label\nu1,sad\nu2\n", "line 3: 1 cells, but the header has 2"),
        ("utterance_id,label\nu1,sad,1\n", "line 2: 3 cells"),
        ("utterance_id\nu1\nu2\nu1\n", "line 4: utterance 'u1' stands already in line 2"),
        ("utterance_id,label\nu1,sad\n,sad\n", "line 3: empty utterance_id"),
        ("utterance_id\na/b\n", "line 2: utterance id 'a/b' has a path separator"),
        ("utterance_id\na\\b\n", "has a path separator"),
        ("utterance_id\n..\n", "dots that could lead out"),
        ("utterance_id\n u1\n", "blanks around it"),
        ('utterance_id,t\n"u\n1",x\n', "control characters"),
        (b"utterance_id,label\nu1,sad\nu2,fr\xfchlich\n", "line 3: not UTF-8 text"),
        ('utterance_id,t\nu1,"open\n', "line 2"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InputError, match="Remedy") as caught:
        read_manifest(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_line_number_counts_lines_within_cells(tmp_path: Path) -> None:
    path = _write(tmp_path, 'utterance_id,t\nu1,"a\nb\nc"\nu1,x\n')
    with pytest.raises(InputError, match=r"line 5: utterance 'u1' stands already in line 4"):
        read_manifest(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read"):
        read_manifest(tmp_path / "absent.csv")


def test_tables_from_memory_are_brought_into_the_same_form() -> None:
    table = pd.DataFrame({"valence": [2.5, 3.0], "utterance_id": ["a", "b"], "label": [0, 1]}, index=[7, 3])
    valid = validate_manifest(table, origin="made up")
    assert valid.index.tolist() == [0, 1]
    assert valid["label"].tolist() == ["0", "1"]
    assert valid["valence"].tolist() == [2.5, 3.0]
    assert valid["valence"].dtype == float


def test_unknown_cells_of_standard_columns_become_empty_text() -> None:
    table = pd.DataFrame({"utterance_id": ["a", "b"], "speaker": ["S1", None], "label": [None, 1.0]})
    valid = validate_manifest(table, origin="made up")
    assert valid["speaker"].tolist() == ["S1", ""]
    assert valid["label"].tolist() == ["", "1.0"]


def test_ids_that_are_not_text_are_refused() -> None:
    with pytest.raises(InputError, match="made up, row 1: utterance_id 2 is not text"):
        validate_manifest(pd.DataFrame({"utterance_id": ["a", 2]}), origin="made up")
