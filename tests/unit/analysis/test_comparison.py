"""Methods beside each other: who is best, and what the paired test supports."""

from __future__ import annotations

import pytest

from cmarr_lightning.analysis.comparison import compare, method_labels, plot_scores
from cmarr_lightning.analysis.statistics import paired_test
from cmarr_lightning.errors import InputError


def supported(comparison, condition: str = "mean of incomplete") -> dict[str, bool]:
    rows = comparison.scores[(comparison.scores["condition"] == condition) & (comparison.scores["metric"] == "uar")]
    return dict(zip(rows["method"], rows["supported"], strict=True))


def test_a_lead_that_the_test_supports_is_marked(make_protocol):
    comparison = compare([make_protocol("weak", skill=0.2), make_protocol("strong", skill=0.95, random=1)])
    assert supported(comparison) == {"weak": False, "strong": True}
    best = comparison.scores[comparison.scores["best"]]
    assert set(best["method"]) == {"strong"}


def test_a_lead_by_chance_is_not_marked(make_protocol):
    comparison = compare([make_protocol("one", random=1), make_protocol("two", random=2)])
    assert comparison.scores["best"].any()
    assert not any(supported(comparison).values())


def test_the_best_has_to_beat_every_other_method(make_protocol):
    comparison = compare([make_protocol("a", skill=0.9), make_protocol("b", skill=0.9), make_protocol("c", skill=0.1)])
    assert comparison.scores.groupby("method")["best"].all().to_dict() == {"a": True, "b": True, "c": False}
    assert not any(supported(comparison).values())


def test_tests_are_those_against_the_first_method(make_protocol):
    results = [make_protocol(name, random=i) for i, name in enumerate(("a", "b", "c"))]
    tests = compare(results).tests
    assert list(tests["method"].unique()) == ["b", "c"]
    expected = paired_test(results[0], results[2])
    expected = expected[expected["metric"] == "war"]["p"].tolist()
    assert tests[(tests["method"] == "c") & (tests["metric"] == "war")]["p"].tolist() == expected


def test_one_method_alone_is_never_best(make_protocol):
    comparison = compare([make_protocol()])
    assert not comparison.scores["best"].any()
    assert comparison.tests.empty


def test_without_predictions_there_are_scores_but_no_tests(make_protocol):
    comparison = compare([make_protocol("a", skill=0.1), make_protocol("b", skill=0.9, keep_predictions=False)])
    assert comparison.tests.empty
    assert comparison.scores["pooled"].notna().all()
    assert not comparison.scores["supported"].any()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data_checksum": "xyz"}, "different data checksums: abc and xyz"),
        ({"class_names": ["glad", "calm", "hurt"]}, "different classes"),
        ({"folds": [0]}, "different test utterances"),
        ({"folds": [0], "keep_predictions": False}, "different numbers of test utterances"),
        ({"gaps": ["0-01"]}, "different conditions"),
    ],
)
def test_results_of_different_data_are_not_mixed(make_protocol, other: dict, message: str):
    with pytest.raises(InputError, match=message):
        compare([make_protocol("a"), make_protocol("b", **other)])


def test_a_folder_named_twice_is_refused(make_protocol):
    results = make_protocol("a")
    with pytest.raises(InputError, match="named twice"):
        compare([results, results])


def test_equal_names_are_told_apart_by_their_folders(make_protocol):
    results = [make_protocol("a", method="CMARR"), make_protocol("b", method="CMARR"), make_protocol("c")]
    assert method_labels(results) == ["CMARR (a)", "CMARR (b)", "c"]


def test_the_picture_names_conditions_and_methods(make_protocol):
    comparison = compare([make_protocol("a"), make_protocol("b", random=1)])
    figure = plot_scores(comparison, "uar", ["audio", "text"])
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["audio", "text"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert "UAR" in axis.get_xlabel()
