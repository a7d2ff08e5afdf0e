from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmarr_lightning.data.conditions import draw_conditions, draw_missing, utterance_keys

MASKS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=30).map(np.array)


def codes_of(drawn: np.ndarray) -> np.ndarray:
    return drawn @ (1 << np.arange(drawn.shape[1]))


def keys_of(count: int) -> np.ndarray:
    return utterance_keys(f"Ses01F_impro01_F{i:05d}" for i in range(count))


@pytest.mark.parametrize(
    ("draw", "observed", "expected"),
    [
        ("all", (True, True, True), {1, 2, 3, 4, 5, 6, 7}),
        ("incomplete", (True, True, True), {1, 2, 3, 4, 5, 6}),
        ("all", (True, False, True), {1, 4, 5}),
        ("incomplete", (True, False, True), {1, 4}),
        ("all", (False, True, False), {2}),
        ("incomplete", (False, True, False), {2}),
    ],
)
def test_every_allowed_subset_is_drawn_equally_often(draw, observed, expected):
    count = 28_000
    drawn = draw_conditions(np.tile(observed, (count, 1)), keys_of(count), seed=3, epoch=5, draw=draw)
    codes, times = np.unique(codes_of(drawn), return_counts=True)
    assert set(codes.tolist()) == expected
    # Pearson's statistic against uniform; with 6 degrees of freedom 22.5 is passed once in a thousand seeds.
    mean = count / len(expected)
    assert ((times - mean) ** 2 / mean).sum() < 22.5


def test_one_utterance_sees_every_subset_equally_often_over_the_epochs():
    observed = np.ones((1, 3), dtype=bool)
    codes = [int(codes_of(draw_conditions(observed, keys_of(1), seed=0, epoch=epoch))[0]) for epoch in range(7000)]
    times = np.bincount(codes, minlength=8)[1:]
    assert ((times - 1000) ** 2 / 1000).sum() < 22.5


@given(MASKS, st.integers(-(2**70), 2**70), st.integers(0, 10_000), st.sampled_from(["all", "incomplete"]))
def test_what_is_drawn_is_observed_and_never_empty(observed, seed, epoch, draw):
    drawn = draw_conditions(observed, keys_of(len(observed)), seed=seed, epoch=epoch, draw=draw)
    assert not (drawn & ~observed).any()
    assert drawn.any(axis=1).all()
    if draw == "incomplete":
        several = observed.sum(axis=1) > 1
        assert (drawn[several].sum(axis=1) < observed[several].sum(axis=1)).all()


@given(MASKS, st.randoms(use_true_random=False))
def test_order_and_batch_mates_change_nothing(observed, random):
    keys = keys_of(len(observed))
    order = list(range(len(observed)))
    random.shuffle(order)
    together = draw_conditions(observed, keys, seed=1, epoch=2)
    shuffled = draw_conditions(observed[order], keys[order], seed=1, epoch=2)
    alone = [draw_conditions(observed[[i]], keys[[i]], seed=1, epoch=2)[0] for i in order]
    np.testing.assert_array_equal(shuffled, together[order])
    np.testing.assert_array_equal(np.array(alone), together[order])


@pytest.mark.parametrize("other", [{"seed": 0, "epoch": 1}, {"seed": 1, "epoch": 0}])
def test_epochs_and_seeds_draw_independently(other):
    observed, keys = np.ones((20_000, 3), dtype=bool), keys_of(20_000)
    first = codes_of(draw_conditions(observed, keys, seed=0, epoch=0))
    second = codes_of(draw_conditions(observed, keys, **other))
    # Independent draws agree in one case of seven, give or take five standard deviations.
    assert abs((first == second).mean() - 1 / 7) < 5 * np.sqrt(6 / 49 / 20_000)


def test_keys_are_pinned_because_a_checkpoint_resumes_with_them():
    assert utterance_keys(["a", "ü"]).tolist() == [3405396810240292928, 3976460501203677525]
    drawn = draw_conditions(np.ones((4, 3), dtype=bool), keys_of(4), seed=7, epoch=2)
    assert codes_of(drawn).tolist() == [7, 7, 5, 7]


@pytest.mark.parametrize(
    ("modalities", "rate", "share"),
    [("avt", 0.0, 0.0), ("avt", 0.3, 0.3), ("avt", 0.6, 0.6), ("avt", 0.7, 2 / 3), ("at", 0.3, 0.3), ("at", 0.5, 0.5)],
)
def test_a_missing_rate_is_the_share_that_is_missing(modalities, rate, share):
    present = draw_missing(keys_of(20_000), modalities, rate)
    assert present.any(axis=1).all()
    assert (~present).mean() == pytest.approx(share, abs=0.006)
    assert (~present).mean(axis=0) == pytest.approx([share] * len(modalities), abs=0.015)


def test_what_is_missing_stays_missing_at_higher_rates():
    masks = [draw_missing(keys_of(500), "avt", rate) for rate in (0.1, 0.3, 0.5, 0.7)]
    for more, fewer in pairwise(masks):
        assert (more >= fewer).all()
        assert (more > fewer).any()


def test_masks_belong_to_the_names_of_utterance_and_modality():
    keys = keys_of(200)
    mask = draw_missing(keys, ["audio", "video", "text"], 0.4)
    np.testing.assert_array_equal(draw_missing(keys[::-1], ["text", "audio", "video"], 0.4), mask[::-1][:, [2, 0, 1]])
    assert (draw_missing(keys, ["audio", "video", "text"], 0.4, seed=1) != mask).any()
