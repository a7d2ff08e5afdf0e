"""Noise: what it does to a batch, and that it can be drawn again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmarr_lightning.data.conditions import utterance_keys
from cmarr_lightning.data.noise import STEPS, Noise, NoiseSource, noise_levels, parse_noise, read_noise
from cmarr_lightning.data.scaling import FeatureStatistics
from cmarr_lightning.errors import InputError

MEAN, STD = np.float32([3.0, -1.0, 100.0]), np.float32([2.0, 0.5, 10.0])
STATISTICS = {m: FeatureStatistics(mean=MEAN, std=STD, low=MEAN - 50, high=MEAN + 50) for m in ("audio", "text")}
KEYS = utterance_keys(f"u{i}" for i in range(200))
LEVELS = st.floats(0.01, 1.0)


def standard(rows: int = 200, frames: int = 100) -> np.ndarray:
    """Features (B, T, 3) of the statistics' mean and deviation."""
    normal = np.random.default_rng(0).standard_normal((rows, frames, 3))
    return (MEAN + STD * normal).astype(np.float32)


def add(
    noise: Noise, features: np.ndarray, *, seed=0, modality="audio", keys=KEYS, epoch=0, lengths=None
) -> np.ndarray:
    lengths = np.full(len(features), features.shape[1]) if lengths is None else lengths
    return NoiseSource(noise, STATISTICS, seed).add(features, lengths, modality, keys[: len(features)], epoch)


def scaled(features: np.ndarray) -> np.ndarray:
    return (features - MEAN) / STD


@pytest.mark.parametrize(("t", "kept"), [(5, 0.92), (10, 0.82), (20, 0.56), (30, 0.28), (40, 0.097), (50, 0.020)])
def test_the_default_schedule_is_that_of_the_released_program(t: int, kept: float):
    assert 1 - noise_levels("scaled_linear")[t] == pytest.approx(kept, abs=0.006)


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "cosine", "sigmoid"])
def test_levels_rise_from_almost_nothing_to_almost_everything(schedule):
    levels = np.array(noise_levels(schedule))
    assert len(levels) == STEPS
    assert (np.diff(levels) > 0).all()
    assert 0 < levels[0] < 0.02
    assert 0.999 < levels[-1] <= 1


def test_schedules_by_hand():
    assert noise_levels("linear")[1] == pytest.approx(1 - 0.99 * (1 - 0.01 - 0.49 / 99))
    assert noise_levels("constant") == (1.0,) * STEPS
    half = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert noise_levels("cosine")[49] == pytest.approx(1 - half)


@pytest.mark.parametrize("level", [0.2, 0.5, 1.0])
def test_gaussian_noise_keeps_mean_and_variance(level: float):
    noisy = scaled(add(parse_noise(f"gaussian-{level}"), standard()))
    assert noisy.mean((0, 1)) == pytest.approx([0] * 3, abs=0.03)
    assert noisy.std((0, 1)) == pytest.approx([1] * 3, abs=0.03)
    correlation = np.corrcoef(noisy.ravel(), scaled(standard()).ravel())[0, 1]
    assert correlation == pytest.approx(np.sqrt(1 - level), abs=0.02)


def test_impulses_hit_three_tenths_of_the_values():
    features = standard()
    rest = scaled(add(parse_noise("impulse-0.36"), features)) - 0.8 * scaled(features)
    hit = np.abs(rest) > 0.1
    assert hit.mean() == pytest.approx(0.3, abs=0.01)
    assert np.abs(rest[hit]) == pytest.approx(0.6, abs=1e-3)
    assert (rest[hit] > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert rest[~hit] == pytest.approx(0, abs=1e-3)


@given(LEVELS, LEVELS, st.sampled_from(["gaussian", "impulse"]))
def test_two_levels_add_the_same_noise(first: float, second: float, kind: str):
    features = standard(4, 3)
    epsilon = [
        (scaled(add(Noise(kind, level, "constant", probability=1), features)) - np.sqrt(1 - level) * scaled(features))
        / np.sqrt(level)
        for level in (first, second)
    ]
    np.testing.assert_allclose(*epsilon, atol=2e-3)


@given(st.permutations(range(8)), st.integers(-(2**70), 2**70), st.integers(0, 1000))
def test_order_and_batch_mates_change_nothing(order, seed, epoch):
    features, lengths = standard(8, 5), np.arange(1, 9) % 5 + 1
    whole = add(Noise(), features, seed=seed, epoch=epoch, lengths=lengths)
    again = add(Noise(), features[order], seed=seed, epoch=epoch, lengths=lengths[order], keys=KEYS[order])
    np.testing.assert_array_equal(again, whole[order])


def test_seed_epoch_utterance_and_modality_have_noise_of_their_own():
    same = np.repeat(standard(1, 4), 2, axis=0)
    first, second = add(parse_noise("gaussian-0.5"), same)
    others = [
        add(parse_noise("gaussian-0.5"), same, **{k: v})[0]
        for k, v in (("seed", 1), ("epoch", 1), ("modality", "text"))
    ]
    for one in (second, *others):
        assert not np.isclose(one, first).any()


def test_the_schedule_draws_every_step_and_level_scales_it():
    features = np.broadcast_to(MEAN + STD * 1e4, (200, 1, 3)).astype(np.float32)
    for level in (1.0, 0.25):
        kept = (scaled(add(Noise(level=level, probability=1), features)) / 1e4)[:, 0, 0]
        allowed = np.sqrt(1 - level * np.array(noise_levels("scaled_linear")))
        distance = np.abs(kept[:, None] - allowed).min(axis=1)
        assert distance.max() < 1e-3
        assert len(set(kept.round(3).tolist())) > 30


def test_a_share_of_the_utterances_is_hit():
    features = standard(200, 1)
    hit = (add(Noise(level=1, schedule="constant", probability=0.3), features) != features).any((1, 2))
    assert hit.mean() == pytest.approx(0.3, abs=0.1)
    assert (add(Noise(probability=0), features) == features).all()


def test_what_is_not_hit_stays_bit_for_bit():
    features = standard(3, 4)
    features[0, 1, 2] = np.nan
    before = features.copy()
    np.testing.assert_array_equal(add(parse_noise("gaussian-0"), features), features)
    np.testing.assert_array_equal(add(parse_noise("gaussian-1-text"), features), features)
    noisy = add(parse_noise("gaussian-1"), features, lengths=np.array([4, 2, 0]))
    assert np.isnan(noisy[0, 1, 2])
    assert np.isnan(noisy).sum() == 1
    np.testing.assert_array_equal(noisy[1, 2:], features[1, 2:])
    np.testing.assert_array_equal(noisy[2], features[2])
    np.testing.assert_array_equal(features, before)
    assert noisy.dtype == np.float32


@pytest.mark.parametrize("name", ["gaussian-0.3", "impulse-1", "gaussian-0.25-audio", "impulse-0.5-audio+two-words"])
def test_names_are_read_and_written(name: str):
    assert parse_noise(name).name == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gaussian", "no level"),
        ("gaussian-loud", "no level"),
        ("gaussian-nan", "level nan"),
        ("gaussian-1.1", "level 1.1"),
        ("pink-0.3", "unknown type 'pink'"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, words: str):
    with pytest.raises(InputError, match=words) as caught:
        parse_noise(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "pink"}, "unknown type 'pink'"),
        ({"schedule": "steep"}, "unknown schedule 'steep'"),
        ({"level": 1.5}, "level is 1.5"),
        ({"probability": -0.1}, "probability is -0.1"),
        ({"strength": 1}, "unknown setting 'strength'"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict, words: str):
    with pytest.raises(InputError, match=words):
        read_noise(settings)


def test_settings_are_read():
    assert read_noise(None) is None
    noise = read_noise({"type": "impulse", "level": 0.4})
    assert noise == replace(Noise(), type="impulse", level=0.4)
    assert read_noise(noise) is noise
