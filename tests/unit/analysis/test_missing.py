"""What missing modalities cost."""

from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.analysis.missing import MEAN, missing_costs, plot_missing_costs, session_confusions
from cmarr_lightning.analysis.statistics import summarize


def test_costs_are_differences_of_pooled_recalls(make_protocol):
    results = make_protocol(seeds=[0])
    costs = missing_costs(results, resamples=200).set_index(["missing", "class"])
    counts = dict(zip(results.conditions, results.confusion.sum(0), strict=True))
    for i, name in enumerate(results.class_names):
        recall = {condition: c[i, i] / c[i].sum() for condition, c in counts.items()}
        row = costs.loc["audio", name]
        assert row["cost"] == pytest.approx(recall["audio+text"] - recall["text"])
        assert row["low"] <= row["cost"] <= row["high"]


def test_the_mean_over_classes_is_the_uar(make_protocol):
    results = make_protocol()
    costs = missing_costs(results, resamples=50).set_index(["class", "missing"])
    scores = summarize(results, resamples=50).set_index(["metric", "condition"])["pooled"]["uar"]
    assert costs.loc[(MEAN, "text"), "complete"] == pytest.approx(scores["audio+text"])
    assert costs.loc[(MEAN, "text"), "without"] == pytest.approx(scores["audio"])


def test_sessions_add_up_to_the_whole(make_protocol):
    results = make_protocol(gaps=["0-04"])
    names, counts = session_confusions(results, "audio")
    assert names == ["S0", "S1"]
    k = results.all_conditions.index("audio")
    np.testing.assert_array_equal(counts.sum(0), results.confusion[:, k].sum(0))


def test_the_picture_names_classes_and_modalities(make_protocol):
    figure = plot_missing_costs(missing_costs(make_protocol(), resamples=50))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["calm", "glad", "hurt", MEAN]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no audio", "no text"]
