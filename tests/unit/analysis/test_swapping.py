"""The paired permutation test against a slow loop, and its rate of false alarms."""

from itertools import product

import numpy as np
import pytest

from cmarr_lightning.analysis.bootstrap import pooled_scores
from cmarr_lightning.analysis.swapping import swapping_test


def counts_of(random, clusters, seeds, right):
    """Confusion counts (G, S, K=3, C=2, C=2) of 20 utterances per class and cluster; `right` is the chance to hit."""
    hits = random.binomial(20, right, size=(clusters, seeds, 3, 2))
    counts = np.zeros((clusters, seeds, 3, 2, 2), dtype=np.int64)
    for c in range(2):
        counts[..., c, c], counts[..., c, 1 - c] = hits[..., c], 20 - hits[..., c]
    return counts


@pytest.mark.parametrize(("clusters", "seeds"), [(4, (1, 1)), (5, (2, 2)), (5, (2, 3))])
def test_it_equals_trying_every_swap(clusters, seeds):
    random = np.random.default_rng(clusters)
    first, second = (counts_of(random, clusters, s, 0.5 + 0.05 * i) for i, s in enumerate(seeds))
    p = swapping_test(first, second, 2)
    # one after another, every seed of one method beside every seed of the other
    one, other = np.repeat(first, seeds[1], axis=1), np.tile(second, (1, seeds[0], 1, 1, 1))
    if seeds[0] == seeds[1]:
        one, other = first, second  # seed beside seed
    differences = {"war": [], "uar": [], "f1": []}
    for swap in product([False, True], repeat=clusters):
        mine = sum(other[g] if swapped else one[g] for g, swapped in enumerate(swap))
        theirs = sum(one[g] if swapped else other[g] for g, swapped in enumerate(swap))
        scores = [pooled_scores(counts, 2) for counts in (mine, theirs)]
        for metric, values in differences.items():
            values.append(scores[1][metric] - scores[0][metric])
    for metric, values in differences.items():
        np.testing.assert_allclose(p[metric], (np.abs(values) >= np.abs(values[0]) - 1e-12).mean(0))


def test_equal_methods_are_told_apart_no_more_often_than_promised():
    """400 pairs of equally good methods whose speakers differ: p <= 0.05 in about 5 % of them."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        right = random.beta(8, 6, size=(8, 1, 1, 1))
        pair = [counts_of(random, 8, 1, np.clip(right + random.normal(0, 0.08, right.shape), 0, 1)) for _ in "ab"]
        alarms += swapping_test(*pair, 2)["uar"][-1] <= 0.05
    assert alarms <= 32  # 8 %: three standard deviations above 5 %


def test_a_large_difference_is_found_and_drawn_swaps_agree_with_all_of_them(monkeypatch):
    random = np.random.default_rng(1)
    first, second = counts_of(random, 10, 2, 0.5), counts_of(random, 10, 2, 0.57)
    exact = swapping_test(first, second, 2)
    assert exact["war"][-1] < 0.05
    monkeypatch.setattr("cmarr_lightning.analysis.swapping._EVERY", 0)
    drawn = swapping_test(first, second, 2, resamples=4000)
    for metric, values in exact.items():
        np.testing.assert_allclose(drawn[metric], values, atol=0.03)


def test_a_method_beside_itself_has_p_one():
    counts = counts_of(np.random.default_rng(2), 6, 2, 0.6)
    assert all((p == 1).all() for p in swapping_test(counts, counts, 2).values())
