"""Pooled scores, bootstrap and paired tests against slow loops."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.analysis.statistics import paired_test, summarize
from cmarr_lightning.errors import InputError


def score_rows(rows: pd.DataFrame) -> dict[str, float]:
    """Score predictions by counting rows."""
    right = rows["true"] == rows["predicted"]
    return {"war": right.mean(), "uar": right.groupby(rows["true"]).mean().mean()}


def pick(table: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    found = table[(table["condition"] == condition) & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_summary_of_runs_and_of_pooled_folds(make_protocol):
    results = make_protocol(seeds=[0, 1, 2])
    summary = summarize(results, resamples=50)
    assert summary["condition"].unique().tolist() == ["audio", "text", "audio+text", "mean of incomplete"]
    rows = results.predictions
    for condition, metric in product(["audio", "text", "audio+text"], ["war", "uar"]):
        part = rows[rows["condition"] == condition]
        runs = [score_rows(run)[metric] for _, run in part.groupby(["seed", "fold"])]
        pooled = [score_rows(seed)[metric] for _, seed in part.groupby("seed")]
        row = pick(summary, condition, metric)
        assert row["mean"] == pytest.approx(np.mean(runs), abs=1e-6)
        assert row["std"] == pytest.approx(np.std(runs, ddof=1), abs=1e-6)
        assert row["pooled"] == pytest.approx(np.mean(pooled))
        assert row["low"] < row["pooled"] < row["high"]
        assert (row["runs"], row["n"], row["cluster"], row["clusters"]) == (6, 60, "speaker", 6)
    for metric in ("war", "uar", "f1"):
        singles = [pick(summary, condition, metric) for condition in ("audio", "text")]
        mean = pick(summary, "mean of incomplete", metric)
        assert mean["mean"] == pytest.approx(np.mean([row["mean"] for row in singles]), abs=1e-6)
        assert mean["pooled"] == pytest.approx(np.mean([row["pooled"] for row in singles]))


def test_one_run_has_no_deviation(make_protocol):
    summary = summarize(make_protocol(seeds=[0], folds=[1]), intervals=False)
    assert summary["std"].isna().all()
    assert summary["low"].isna().all()
    assert summary["mean"].to_numpy() == pytest.approx(summary["pooled"].to_numpy(), abs=1e-6)


def test_a_seed_that_lacks_a_fold_is_not_pooled(make_protocol):
    make_protocol(seeds=[0])
    results = make_protocol(seeds=[1], folds=[0])
    alone = make_protocol("alone", seeds=[0])
    summary, expected = (summarize(r, intervals=False) for r in (results, alone))
    assert (summary["runs"] == 3).all()
    pd.testing.assert_series_equal(summary["pooled"], expected["pooled"])


def test_nothing_is_pooled_while_no_seed_is_whole(make_protocol):
    make_protocol(seeds=[0], folds=[1])
    results = make_protocol(seeds=[1], folds=[0])
    summary = summarize(results)
    assert summary["pooled"].isna().all()
    assert summary["mean"].notna().all()


def test_a_method_does_not_differ_from_itself(make_protocol):
    results = make_protocol()
    test = paired_test(results, results, resamples=100)
    assert (test[["difference", "low", "high"]] == 0).all(axis=None)
    assert (test["p"] == 1).all()


def test_a_better_method_is_found_better(make_protocol):
    poor, good = make_protocol("poor", skill=0.3), make_protocol("good", skill=0.95, random=1, seeds=[0])
    test = paired_test(poor, good, resamples=500)
    assert set(test["condition"]) == {"audio", "text", "audio+text", "mean of incomplete"}
    assert (test["p"] == 2**-5).all()  # the least that six clusters can show
    assert (test["low"] > 0).all()
    assert (test["clusters"] == 6).all()
    assert (test["n"] == 60).all()
    for results, column in ((poor, "first"), (good, "second")):
        summary = summarize(results, intervals=False)
        for row in test.itertuples():
            assert getattr(row, column) == pytest.approx(pick(summary, row.condition, row.metric)["pooled"])
    back = paired_test(good, poor, resamples=500)
    np.testing.assert_allclose(back["difference"], -test["difference"])
    np.testing.assert_allclose(back["p"], test["p"])


def test_pairs_are_narrower_than_two_independent_samples(make_protocol):
    """Two methods that are right on nearly the same rows: what they share cancels."""
    first, second = make_protocol("first", skill=0.6), make_protocol("second", skill=0.6)
    rows = second.predictions
    rows["predicted"] = first.predictions["predicted"]
    rows.loc[rows.index[:4], "predicted"] = "glad"
    row = pick(paired_test(first, second, resamples=300), "audio", "war")
    spread = pick(summarize(first, resamples=300), "audio", "war")
    assert row["high"] - row["low"] < 0.5 * (spread["high"] - spread["low"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data_checksum": "other"}, "different data checksums: abc and other"),
        ({"class_names": ["glad", "calm", "hurt"]}, "different classes"),
        ({"gaps": ["0-01"]}, "different conditions"),
        ({"folds": [0]}, "speakers of the utterances differ|different test utterances, e.g. '1-00'"),
    ],
)
def test_results_that_cannot_be_paired_are_refused(make_protocol, other: dict, message: str):
    first, second = make_protocol("first"), make_protocol("second", **other)
    with pytest.raises(InputError, match=message):
        paired_test(first, second)


def test_other_labels_of_the_same_rows_are_refused(make_protocol):
    first, second = make_protocol("first"), make_protocol("second")
    second.predictions.loc[0, "true"] = "hurt"
    with pytest.raises(InputError, match="different test utterances, or their labels"):
        paired_test(first, second)


def test_results_without_a_whole_seed_are_refused(make_protocol):
    first = make_protocol("first")
    make_protocol("second", seeds=[0], folds=[0])
    second = make_protocol("second", seeds=[1], folds=[1])
    with pytest.raises(InputError, match="no seed has all folds"):
        paired_test(first, second)


def test_a_tampered_store_shows(make_protocol):
    make_protocol("first")
    folder = make_protocol("second").folder
    for path in folder.rglob("about.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_checksum": "changed"}))
    with pytest.raises(InputError, match="different data checksums"):
        paired_test(load_results(folder.parent / "first"), load_results(folder))


def test_methods_of_different_protocols_are_not_compared(make_protocol):
    make_protocol("first")
    make_protocol("second", protocol="speaker")
    with pytest.raises(InputError, match="different protocols: session and speaker"):
        paired_test(*(load_results(make_protocol("first").folder.parent / name) for name in ("first", "second")))
