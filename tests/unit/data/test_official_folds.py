"""Audit and repair of official folds."""

from __future__ import annotations

import pandas as pd
import pytest

from cmarr_lightning.data.folds import official_columns
from cmarr_lightning.data.official_folds import audit_official_folds, repair_official_folds
from cmarr_lightning.errors import InputError


def _fair(sessions: int = 3) -> pd.DataFrame:
    """One labelled utterance per speaker, two speakers per session; leave one speaker out."""
    speakers = [f"S{s}{g}" for s in range(1, sessions + 1) for g in "FM"]
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(len(speakers))],
            "session": [s[:-1] for s in speakers],
            "speaker": speakers,
            "label": "sad",
        }
    )
    for number, left_out in enumerate(speakers, start=1):
        table[f"split_{number}"] = [
            "test" if s == left_out else "val" if s[:-1] == left_out[:-1] else "train" for s in speakers
        ]
    return table


def test_fair_folds_have_no_faults() -> None:
    assert audit_official_folds(_fair()) == []
    assert audit_official_folds(_fair().drop(columns=[f"split_{k}" for k in range(1, 7)])) == []


def test_columns_come_in_the_order_of_their_folds() -> None:
    assert official_columns(_fair(6))[-4:] == ["split_9", "split_10", "split_11", "split_12"]
    assert official_columns(pd.DataFrame(columns=["split", "split_x", "mysplit_1"])) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda t: t.assign(split_2=t["split_1"]),
            [
                "split_2 repeats split_1: the same training, validation and test utterances",
                "never tested: 1 utterances (S1M)",
                "tested more than once: 1 utterances (S1F)",
            ],
        ),
        (
            lambda t: t.assign(split_3=t["split_3"].replace("val", "train")),
            ["split_3 has no val utterance"],
        ),
        (
            lambda t: t.assign(split_1=t["split_1"].mask(t["speaker"] == "S3M", "")),
            ["split_1 leaves 1 labelled utterances out: u5"],
        ),
        (
            lambda t: t.assign(speaker=t["speaker"].replace("S1M", "S1F")),
            ["split_1: speakers in both val and test: S1F", "split_2: speakers in both val and test: S1F"],
        ),
    ],
)
def test_faults_are_named(change: object, expected: list[str]) -> None:
    assert audit_official_folds(change(_fair())) == expected


def test_unlabelled_utterances_need_no_part() -> None:
    table = pd.concat([_fair(), pd.DataFrame([{"utterance_id": "x", "speaker": "S9", "label": ""}])]).fillna("")
    assert audit_official_folds(table.reset_index(drop=True)) == []


def test_repaired_folds_are_fair_and_leave_the_rest_of_the_table_alone() -> None:
    table = _fair()
    broken = table.assign(split_2=table["split_1"], split_7=table["split_1"])
    repaired = repair_official_folds(broken)
    assert audit_official_folds(repaired) == []
    pd.testing.assert_frame_equal(repaired, table, check_dtype=False)


@pytest.mark.parametrize("column", ["session", "speaker"])
def test_without_speakers_nothing_is_repaired(column: str) -> None:
    with pytest.raises(InputError, match=f"the column {column} is empty"):
        repair_official_folds(_fair().assign(**{column: ""}))
