"""Calibration errors and reliability diagrams."""

from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.analysis.calibration import calibration_bins, calibration_errors, plot_calibration
from cmarr_lightning.errors import InputError


def accuracy(results, condition: str) -> float:
    rows = results.predictions[results.predictions["condition"] == condition]
    return (rows["true"] == rows["predicted"]).mean()


def test_with_one_confidence_the_error_is_its_distance_to_the_accuracy(make_protocol):
    results = make_protocol(confidence=0.9)
    errors = calibration_errors(results)
    assert list(errors.index) == results.all_conditions
    for condition in results.conditions:
        assert errors[condition] == pytest.approx(abs(0.9 - accuracy(results, condition)), abs=1e-6)


def test_bins_and_errors_agree(make_protocol):
    results = make_protocol(confidence=0.4, gaps=["0-03"])
    columns = [f"p_{name}" for name in results.class_names]
    random = np.random.default_rng(0)
    drawn = random.dirichlet([1, 1, 1], size=len(results.predictions)).astype(np.float32)
    results.predictions[columns] = drawn
    results.predictions["predicted"] = np.array(results.class_names)[drawn.argmax(axis=1)]
    bins, errors = calibration_bins(results), calibration_errors(results)
    assert list(bins["condition"].unique()) == results.all_conditions
    for condition, part in bins.groupby("condition"):
        gap = (part["n"] * (part["accuracy"] - part["confidence"]).abs()).sum() / part["n"].sum()
        assert errors[condition] == pytest.approx(gap, abs=1e-5)


def test_a_method_without_probabilities_is_named(make_protocol):
    with pytest.raises(InputError, match="mine gives classes without probabilities"):
        calibration_errors(make_protocol())


def test_the_picture_has_a_labelled_panel_per_condition(make_protocol):
    figure = plot_calibration({"mine": calibration_bins(make_protocol(confidence=0.7))}, ["audio", "audio+text"])
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == ["audio", "audio+text"]
    assert {(axis.get_xlabel(), axis.get_ylabel()) for axis in panels} == {("confidence, %", "accuracy, %")}
