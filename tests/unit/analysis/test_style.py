"""Which conditions pictures show."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cmarr_lightning.analysis.style import grid, look_of, shown_conditions
from cmarr_lightning.modalities import all_conditions, condition_name


def names(count: int) -> list[str]:
    return [condition_name(c) for c in all_conditions("abcdefgh"[:count])]


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_up_to_four_modalities_every_condition_is_shown(modalities: int):
    assert shown_conditions(names(modalities)) == (names(modalities), [])


def test_of_63_conditions_the_telling_ones_are_shown_in_order():
    shown, left_out = shown_conditions(names(6))
    assert len(shown) == 16
    assert {*"abcdef", "a+b+c+d+e+f", "b+c+d+e+f", "a+b+c+d+e"} <= set(shown)
    assert sorted(shown + left_out) == sorted(names(6))
    assert all(names(6).index(one) < names(6).index(two) for one, two in pairwise(shown))


def test_looks_differ_in_more_than_colour():
    looks = look_of([str(i) for i in range(7)])
    assert len({look.color for look in looks.values()}) == len({look.marker for look in looks.values()}) == 7


def test_a_grid_has_as_many_panels_as_asked_for():
    figure, axes = grid(5, 2, 2)
    assert len(axes) == 5
    assert sum(axis.axison for axis in figure.axes) == 5
