"""Pictures of confusion matrices."""

from __future__ import annotations

import numpy as np

from cmarr_lightning.analysis.plots import plot_confusion_differences, plot_confusions

CLASSES = ["calm", "glad"]
COUNTS = np.array([[[3, 1], [0, 6]], [[2, 2], [3, 3]]])


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_shares_and_counts_are_written_with_class_names():
    figure = plot_confusions(COUNTS, ["audio", "text"], CLASSES, "mine")
    audio = figure.axes[0]
    assert texts(audio) == ["75 %\n3", "25 %\n1", "0 %\n0", "100 %\n6"]
    assert [label.get_text() for label in audio.get_xticklabels()] == CLASSES
    assert (audio.get_title(), audio.get_xlabel(), audio.get_ylabel()) == ("audio", "predicted", "true")


def test_differences_are_in_percentage_points():
    figure = plot_confusion_differences(COUNTS[:1], COUNTS[1:], ["audio"], CLASSES)
    assert texts(figure.axes[0]) == ["-25.0", "+25.0", "+50.0", "-50.0"]


def test_a_class_that_does_not_occur_draws_zeros():
    figure = plot_confusions(np.array([[[0, 0], [1, 1]]]), ["audio"], CLASSES)
    assert texts(figure.axes[0])[0] == "0 %\n0"
