from __future__ import annotations

import pandas as pd
import pytest

from cmarr_lightning.data.columns import matching_rows, text_column
from cmarr_lightning.errors import InputError

TABLE = pd.DataFrame({"recording": ["S", "P", None, "S"], "take": [1, 2, 2, 1], "gender": ["F", "M", "M", "M"]})


def test_numbers_and_gaps_become_text():
    assert text_column(TABLE, "take", purpose="test").tolist() == ["1", "2", "2", "1"]
    assert text_column(TABLE, "recording", purpose="test").tolist() == ["S", "P", "", "S"]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"recording": "S"}, [0, 3]),
        ({"recording": ["S", "P"], "gender": "M"}, [1, 3]),
        ({"take": "2"}, [1, 2]),
    ],
)
def test_rows_match_all_columns(where, rows):
    assert matching_rows(TABLE, where).tolist() == rows


def test_unknown_column_is_named_with_those_that_exist():
    with pytest.raises(InputError, match=r"`where`: the manifest has no column 'scene'.*recording, take, gender"):
        matching_rows(TABLE, {"scene": "1"})


def test_a_filter_that_leaves_nothing_is_an_error():
    with pytest.raises(InputError, match=r"no utterance is left after gender = X"):
        matching_rows(TABLE, {"recording": "S", "gender": "X"})
