"""Measures of reconstructed representations."""

from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.analysis.reconstruction import (
    MEASURES,
    LinearProbe,
    max_mean_discrepancy,
    mean_cosine,
    protocol_reconstruction,
    relative_mse,
    representation_quality,
)
from cmarr_lightning.analysis.representations import Representations, plot_representations
from cmarr_lightning.errors import InputError
from cmarr_lightning.modalities import incomplete_conditions

RANDOM = np.random.default_rng(0)
REAL = RANDOM.standard_normal((300, 8)).astype(np.float32) + 5


def representations(noise: float, count: int = 200, seed: int = 1) -> Representations:
    """Points that give their class away; audio is reconstructed from text with noise, text from audio as a mean."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    real = random.standard_normal((count, 2, 6)) + 4 * np.eye(6)[labels][:, None]
    points = np.repeat(real[:, None], 2, axis=1)
    points[:, 0, 1] = real[:, 1].mean(0)
    points[:, 1, 0] = real[:, 0] + noise * random.standard_normal((count, 6))
    modalities = ["audio", "text"]
    conditions = list(incomplete_conditions(modalities))
    real, points = (x.astype(np.float32) for x in (real, points))
    return Representations(modalities, conditions, ["calm", "glad", "hurt"], labels, real, points)


def test_the_truth_is_perfect():
    assert relative_mse(REAL, REAL) == 0
    assert mean_cosine(REAL, REAL) == pytest.approx(1)
    assert max_mean_discrepancy(REAL, REAL) == pytest.approx(0, abs=1e-3)


def test_the_mean_of_the_truth_is_the_yardstick():
    mean = np.broadcast_to(REAL.mean(0), REAL.shape)
    assert relative_mse(mean, REAL) == pytest.approx(1)
    assert mean_cosine(mean, REAL) == pytest.approx(0, abs=1e-6)


def test_the_common_part_makes_nothing_alike():
    unrelated = RANDOM.permutation(REAL)
    assert abs(mean_cosine(unrelated, REAL)) < 0.1
    assert relative_mse(unrelated, REAL) == pytest.approx(2, abs=0.2)


def test_discrepancy_sees_distributions_not_pairs():
    other = RANDOM.standard_normal((250, 8)).astype(np.float32) + 5
    same = max_mean_discrepancy(RANDOM.permutation(REAL), REAL)
    assert same < max_mean_discrepancy(other, REAL) < 0.15 < max_mean_discrepancy(other + 1, REAL)


def test_discrepancy_is_the_double_sum():
    a, b = REAL[:7], REAL[7:12] + 1
    joint = np.concatenate([a, b])
    distance = [[np.sum((x - y) ** 2) for y in joint] for x in joint]
    kernel = np.exp(-np.array(distance) / np.median(distance))
    expected = kernel[:7, :7].mean() + kernel[7:, 7:].mean() - 2 * kernel[:7, 7:].mean()
    assert max_mean_discrepancy(a, b) == pytest.approx(np.sqrt(expected), rel=1e-3)


def test_the_probe_reads_rare_classes_too():
    labels = np.array([0] * 500 + [1] * 20)
    points = RANDOM.standard_normal((520, 4)) + 3 * labels[:, None]
    probe = LinearProbe(points, labels, 3)
    assert (probe(points[500:]) == 1).mean() > 0.9
    assert (probe(points) != 2).all()


def test_quality_per_condition_and_missing_modality():
    table = representation_quality(representations(0.1, seed=2), representations(0.1)).set_index("missing")
    assert table["condition"].to_dict() == {"audio": "text", "text": "audio"}
    assert table.loc["audio", "relative_mse"] < 0.01
    assert table.loc["audio", "probe_recovered"] > 0.95
    assert table.loc["text", "relative_mse"] == pytest.approx(1)
    assert table.loc["text", "probe_recovered"] == pytest.approx(1 / 3)
    assert table.loc["text", "probe_true"] > 0.95


def test_what_is_present_is_not_reconstructed():
    with pytest.raises(InputError, match="audio is not reconstructed under audio"):
        representations(0).recovered(("audio",), "audio")


def test_a_trained_protocol_is_measured(tiny_protocol):
    table = protocol_reconstruction(load_results(tiny_protocol))
    assert len(table) == 3 * 9
    assert list(table.columns) == ["run", "fold", "condition", "missing", *MEASURES, "n"]
    assert np.isfinite(table[list(MEASURES)]).all(axis=None)
    assert (table["n"] == 60).all()


def test_the_picture_has_a_panel_per_missing_modality():
    pytest.importorskip("sklearn")
    figure = plot_representations(representations(0.1, count=30), ("text",))
    (axis,) = figure.axes
    assert axis.get_title() == "audio, recovered from text"
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {f"{name}, {kind}" for name in ("calm", "glad", "hurt") for kind in ("true", "recovered")}
