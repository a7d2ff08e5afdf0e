from __future__ import annotations

import math

import pytest

from cmarr_lightning.tasks.schedules import linear_decay, warmup_cosine


def test_the_rate_stays_then_falls_and_never_reaches_zero():
    factors = [linear_decay(epoch, 30, 30) for epoch in range(60)]
    assert factors[:30] == [1.0] * 30
    assert factors[30:] == pytest.approx([1 - k / 31 for k in range(1, 31)])
    assert factors[-1] == pytest.approx(1 / 31)


def test_without_epochs_of_decay_the_rate_stays():
    assert [linear_decay(epoch, 5, 0) for epoch in range(5)] == [1.0] * 5


def test_the_cosine_rises_and_falls():
    assert warmup_cosine(0, 100, 0.0) == 1.0
    assert warmup_cosine(50, 100, 0.0) == pytest.approx(0.5)
    assert warmup_cosine(100, 100, 0.05) == pytest.approx(0.0, abs=1e-12)
    assert warmup_cosine(2, 100, 0.05) == pytest.approx(0.5 * 0.5 * (1 + math.cos(0.02 * math.pi)))
