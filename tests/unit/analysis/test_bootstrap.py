"""Resampled clusters against slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmarr_lightning.analysis.bootstrap import bootstrap, interval, pooled_scores
from cmarr_lightning.errors import InputError


def score_rows(rows: pd.DataFrame) -> dict[str, float]:
    """Score predictions by counting rows."""
    right = rows["true"] == rows["predicted"]
    return {"war": right.mean(), "uar": right.groupby(rows["true"]).mean().mean()}


def test_cluster_counts_add_up_to_the_confusions(make_protocol):
    results = make_protocol(gaps=["1-00"])
    for cluster, number in (("speaker", 6), ("session", 2), ("utterance", 60)):
        names, counts = results.cluster_counts(cluster)
        assert len(names) == number
        assert counts.shape == (number, 2, 4, 3, 3)
        for s, seed in enumerate((0, 1)):
            of_seed = [run.seed == seed for run in results.runs]
            np.testing.assert_array_equal(counts[:, s].sum(0), results.confusion[of_seed].sum(0))


def test_the_speaker_is_drawn_where_it_is_known(make_protocol):
    results = make_protocol()
    assert results.cluster == "speaker"
    results.predictions.loc[3, "speaker"] = ""
    assert results.cluster == "session"
    with pytest.raises(InputError, match="utterance '0-03' has no speaker"):
        results.cluster_counts("speaker")
    results.predictions["session"] = ""
    assert results.cluster == "utterance"


def test_bootstrap_equals_a_slow_loop_over_rows(make_protocol):
    results = make_protocol()
    names, counts = results.cluster_counts("speaker")
    drawn = bootstrap(counts, 2, resamples=20, seed=3)
    random = np.random.default_rng(3)
    choices = random.integers(len(names), size=(20, len(names)))
    rows = {name: part for name, part in results.predictions.groupby("speaker")}
    for r, choice in enumerate(choices):
        resample = pd.concat([rows[names[g]] for g in choice])
        for k, condition in enumerate(results.conditions):
            of_condition = resample[resample["condition"] == condition]
            for metric in ("war", "uar"):
                expected = np.mean([score_rows(part)[metric] for _, part in of_condition.groupby("seed")])
                assert drawn[metric][r, k] == pytest.approx(expected)


def test_blocks_change_nothing(make_protocol, monkeypatch: pytest.MonkeyPatch):
    _, counts = make_protocol().cluster_counts("speaker")
    whole = bootstrap(counts, 2, resamples=30)
    monkeypatch.setattr("cmarr_lightning.analysis.bootstrap._BLOCK", 100)
    parts = bootstrap(counts, 2, resamples=30)
    for metric in whole:
        np.testing.assert_array_equal(whole[metric], parts[metric])


def test_a_class_that_a_resample_lacks_is_left_out():
    counts = np.zeros((2, 1, 2, 2, 2), dtype=np.int64)
    counts[0, 0, :] = [[3, 1], [0, 0]]
    counts[1, 0, :] = [[0, 0], [2, 2]]
    drawn = bootstrap(counts, 1, resamples=200)["uar"][:, 0]
    assert set(np.round(drawn, 3)) == {0.75, 0.625, 0.5}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 5))
def test_pooled_scores_are_shares(seed: int, seeds: int, classes: int):
    random = np.random.default_rng(seed)
    confusion = random.integers(0, 6, size=(seeds, 3, classes, classes)) + np.eye(classes, dtype=int)
    scores = pooled_scores(confusion, 2)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    np.testing.assert_allclose(scores["war"][:3], (hits / confusion.sum((-2, -1))).mean(0))
    for values in scores.values():
        assert values.shape == (4,)
        assert ((values >= 0) & (values <= 1)).all()
        assert values[3] == pytest.approx(values[:2].mean())


def test_intervals_cover_what_they_should():
    """Independent clusters with a known accuracy of 0.7: about 95 of 100 intervals hold it."""
    random, covered = np.random.default_rng(0), 0
    for trial in range(100):
        skill = np.clip(random.normal(0.7, 0.1, size=40), 0, 1)
        hits = random.binomial(25, skill)
        counts = np.zeros((40, 1, 2, 2, 2), dtype=np.int64)
        counts[:, 0, :, 0, 0], counts[:, 0, :, 0, 1] = hits[:, None], 25 - hits[:, None]
        low, high = interval(bootstrap(counts, 1, resamples=400, seed=trial)["war"], 40)
        covered += low[0] <= 0.7 <= high[0]
    assert 88 <= covered <= 99


def test_few_clusters_have_no_interval():
    drawn = np.random.default_rng(0).random((100, 3))
    assert np.isnan(interval(drawn, 4)).all()
    low, high = interval(drawn, 5)
    assert ((low > 0) & (low < 0.1) & (high > 0.9) & (high < 1)).all()
