from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmarr_lightning.errors import InputError
from cmarr_lightning.modalities import (
    all_conditions,
    condition_name,
    condition_table,
    incomplete_conditions,
    parse_condition,
    per_modality,
)

NAMES = ("audio", "video", "text", "eeg", "gsr", "nonverbal")


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_conditions_are_all_non_empty_subsets_once_each(count):
    conditions = all_conditions(NAMES[:count])
    subsets = {frozenset(NAMES[i] for i in range(count) if bits >> i & 1) for bits in range(1, 2**count)}
    assert len(conditions) == 2**count - 1
    assert {frozenset(c) for c in conditions} == subsets


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_single_modalities_come_first_and_the_complete_condition_last(count):
    conditions = all_conditions(NAMES[:count])
    assert conditions[:count] == tuple((m,) for m in NAMES[:count])
    assert conditions[-1] == NAMES[:count]
    assert [len(c) for c in conditions] == sorted(len(c) for c in conditions)


def test_members_keep_the_order_of_the_modalities():
    for condition in all_conditions(NAMES):
        assert list(condition) == sorted(condition, key=NAMES.index)


def test_incomplete_conditions_are_all_but_the_complete_one():
    assert incomplete_conditions(NAMES[:3]) == all_conditions(NAMES[:3])[:-1]
    assert incomplete_conditions(NAMES[:1]) == ()


def test_a_name_in_any_order_reads_as_the_condition():
    for condition in all_conditions(NAMES[:3]):
        for order in permutations(condition):
            assert parse_condition(condition_name(order), NAMES[:3]) == condition


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_reading_inverts_naming(members):
    condition = tuple(m for m in NAMES if m in members)
    assert parse_condition(condition_name(condition), NAMES) == condition


@pytest.mark.parametrize("name", ["audio+smell", "", "audio+", "Audio", "audio + text"])
def test_unknown_modalities_are_refused_with_what_is_known(name):
    with pytest.raises(InputError, match=r"unknown modality.*use audio, text joined by") as caught:
        parse_condition(name, ("audio", "text"))
    assert repr(name) in str(caught.value)


def test_a_modality_named_twice_is_refused():
    with pytest.raises(InputError, match="'audio\\+audio' names a modality twice"):
        parse_condition("audio+audio", ("audio", "text"))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_table_says_what_the_conditions_say(count):
    names = NAMES[:count]
    table = condition_table(names)
    assert table.shape == (2**count - 1, count)
    for row, condition in zip(table.tolist(), all_conditions(names), strict=True):
        assert tuple(m for m, present in zip(names, row, strict=True) if present) == condition


def test_the_table_keeps_the_order_of_the_conditions_it_is_given():
    table = condition_table(NAMES[:3], [("video", "text"), ("audio",)])
    assert table.tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize("given_names", [("audio",), ("audio", "video", "text"), ()])
def test_an_option_by_name_names_exactly_the_modalities(given_names):
    with pytest.raises(InputError, match=r"input_dropout names .*, the modalities are audio, text"):
        per_modality("input_dropout", dict.fromkeys(given_names, 0.1), ("audio", "text"))
