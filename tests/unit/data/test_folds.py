from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmarr_lightning.data.folds import Split, audit_folds, choose_fold, make_folds
from cmarr_lightning.errors import InputError

CLASSES = ["angry", "happy", "neutral"]
LABELS = np.tile([0, 1, 2], 16)
ROWS = np.arange(48)
TABLE = pd.DataFrame(
    {
        "utterance_id": [f"u{i:02d}" for i in range(48)],
        "session": np.repeat(["Ses01", "Ses02", "Ses03", "Ses04"], 12),
        "speaker": np.repeat([f"Ses0{s}{g}" for s in "1234" for g in "FM"], 6),
        "fold": np.repeat([9, 10, 11], 16),
        "split": np.repeat(["train", "val", "test"], [24, 12, 12]),
    }
)
NO_SPEAKERS = TABLE.assign(speaker="")


def folds_of(protocol, table=TABLE, rows=ROWS, **options):
    return make_folds(table, rows, LABELS, protocol, **options)


def audit(folds, table=TABLE, rows=ROWS, labels=LABELS, *, cross_validation=True):
    audit_folds(folds, table, rows, labels, CLASSES, cross_validation=cross_validation)


def groups(rows: np.ndarray, column: str) -> list[object]:
    return sorted(set(TABLE[column].iloc[rows]))


def test_session_out_validates_on_the_next_session_and_wraps_around():
    folds = folds_of("session")
    assert [(groups(f.test, "session"), groups(f.val, "session")) for f in folds] == [
        (["Ses01"], ["Ses02"]),
        (["Ses02"], ["Ses03"]),
        (["Ses03"], ["Ses04"]),
        (["Ses04"], ["Ses01"]),
    ]
    assert groups(folds[3].train, "session") == ["Ses02", "Ses03"]
    audit(folds)


def test_speaker_out_validates_on_the_other_speaker_of_the_session():
    folds = folds_of("speaker")
    assert len(folds) == 8
    assert groups(folds[3].test, "speaker") == ["Ses02M"]
    assert groups(folds[3].val, "speaker") == ["Ses02F"]
    assert groups(folds[3].train, "session") == ["Ses01", "Ses03", "Ses04"]
    audit(folds)


def test_fold_column_is_ordered_by_number():
    folds = folds_of("column")
    assert [groups(f.test, "fold") for f in folds] == [[9], [10], [11]]
    assert groups(folds[1].val, "fold") == [11]
    assert [groups(f.test, "session") for f in folds_of("column", column="session")] == [
        ["Ses01"],
        ["Ses02"],
        ["Ses03"],
        ["Ses04"],
    ]


def test_official_split_is_one_fold():
    (split,) = folds_of("official")
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == (
        list(range(24)),
        list(range(24, 36)),
        list(range(36, 48)),
    )
    audit([split], cross_validation=False)


def test_numbered_official_splits_are_folds_of_one_cross_validation():
    table = TABLE.drop(columns="split").assign(split_10=np.roll(TABLE["split"], 12), split_9=TABLE["split"])
    first, second = folds_of("official", table=table)
    assert [groups(first.test, "session"), groups(second.test, "session")] == [["Ses04"], ["Ses01"]]
    (named,) = folds_of("official", table=table, column="split_10")
    assert named.test.tolist() == second.test.tolist()


@given(
    counts=st.lists(st.integers(5, 40), min_size=2, max_size=4),
    num_folds=st.integers(3, 5),
    seed=st.integers(0, 20),
)
def test_stratified_folds_share_every_class_and_all_rows_evenly(counts, num_folds, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    table = pd.DataFrame({"utterance_id": [str(i) for i in range(len(labels))], "speaker": ""})
    rows = np.arange(len(labels))
    folds = make_folds(table, rows, labels, "stratified", num_folds=num_folds, seed=seed)
    audit_folds(folds, table, rows, labels, [str(c) for c in range(len(counts))], cross_validation=True)
    assert np.ptp([len(f.test) for f in folds]) <= 1
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        np.testing.assert_array_equal(fold.val, following.test)
    for label in range(len(counts)):
        assert np.ptp([(labels[f.test] == label).sum() for f in folds]) <= 1


def test_stratified_folds_depend_on_the_seed_only():
    first, again, other = (folds_of("stratified", seed=seed)[0].test for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("protocol", ["session", "speaker", "column", "official", "stratified"])
def test_only_the_given_rows_take_part(protocol):
    rows = ROWS[ROWS % 4 != 1]
    for split in folds_of(protocol, rows=rows):
        together = np.concatenate([split.train, split.val, split.test])
        assert sorted(together.tolist()) == rows.tolist()


@pytest.mark.parametrize(("fold", "valid"), [(-1, "0 to 3"), (4, "0 to 3")])
def test_a_fold_out_of_range_says_what_is_valid(fold, valid):
    with pytest.raises(InputError, match=rf"fold {fold} is out of range.*{valid}"):
        choose_fold(folds_of("session"), fold)


def test_there_is_one_official_fold():
    with pytest.raises(InputError, match=r"fold 1 is out of range.*set `fold` to 0\."):
        choose_fold(folds_of("official"), 1)


@pytest.mark.parametrize(
    ("protocol", "table", "options", "message"),
    [
        ("column", TABLE, {"column": "part"}, r"no column 'part'.*utterance_id, session"),
        ("session", TABLE.assign(session=""), {}, r"column 'session' is empty for u00, u01, .* and 43 more"),
        ("session", TABLE.assign(session="Ses01"), {}, r"need 3 groups, found Ses01"),
        (
            "speaker",
            TABLE.assign(speaker=TABLE["session"]),
            {},
            r"Ses01 is the only speaker of session Ses01",
        ),
        ("speaker", NO_SPEAKERS, {}, r"column 'speaker' is empty"),
        ("official", TABLE.assign(split="dev"), {}, r"column 'split' of the manifest holds dev"),
        ("stratified", TABLE, {"num_folds": 2}, r"2 stratified folds.*3 or more"),
    ],
)
def test_what_the_manifest_lacks_is_named(protocol, table, options, message):
    with pytest.raises(InputError, match=message):
        folds_of(protocol, table=table, **options)


def test_audit_names_utterances_in_two_parts():
    split = folds_of("session")[0]
    leaking = Split(train=np.append(split.train, split.test[:2]), val=split.val, test=split.test)
    with pytest.raises(InputError, match=r"fold 0: utterances in both training and test: u00, u01\."):
        audit([leaking], cross_validation=False)


def test_audit_names_speakers_in_two_parts():
    table = TABLE.assign(speaker=TABLE["speaker"].replace("Ses04M", "Ses02F"))
    with pytest.raises(InputError, match=r"fold 0: speakers in both training and validation: Ses02F"):
        audit(folds_of("session", table=table), table=table)
    with pytest.raises(InputError, match=r"fold 0: speakers in both training and validation: Ses01F, Ses01M"):
        audit(folds_of("stratified"))


def test_unknown_speakers_are_not_one_speaker():
    audit(folds_of("stratified", table=NO_SPEAKERS), table=NO_SPEAKERS)


def test_audit_names_a_class_without_training_utterances():
    labels = np.where(TABLE["session"].isin(["Ses01", "Ses02"]), LABELS, 0)
    with pytest.raises(InputError, match=r"fold 0: no training utterance of class happy, neutral"):
        audit(folds_of("session"), labels=labels)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_audit_refuses_an_empty_part(part):
    table = TABLE.assign(split=TABLE["split"].replace(part, "test" if part != "test" else "train"))
    name = {"train": "training", "val": "validation", "test": "test"}[part]
    with pytest.raises(InputError, match=rf"fold 0: no {name} utterance"):
        audit(folds_of("official", table=table), table=table, cross_validation=False)


def test_audit_finds_a_speaker_who_is_tested_twice_in_place_of_another():
    folds = list(folds_of("speaker"))
    folds[7] = folds[6]  # the fault of a target folder that is in wide use
    with pytest.raises(InputError, match=r"tested more than once: u36, .* and 1 more \(folds 6, 7\)"):
        audit(folds)


def test_audit_finds_utterances_that_are_never_tested():
    with pytest.raises(InputError, match=r"tested in no fold: u36, u37"):
        audit(folds_of("session")[:3])
