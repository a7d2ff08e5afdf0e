"""Scores under noise and at random missing rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cmarr_lightning.analysis.evaluation import write_noisy
from cmarr_lightning.analysis.protocol import ProtocolResults, load_results, write_results
from cmarr_lightning.analysis.report import MASKS, write_report
from cmarr_lightning.analysis.robustness import missing_masks, missing_rate_scores, noise_scores, plot_robustness
from cmarr_lightning.analysis.statistics import summarize
from cmarr_lightning.errors import InputError
from cmarr_lightning.metrics import unweighted_average_recall

NOISES = ("gaussian-0.5", "gaussian-1", "impulse-0.5-audio")


def with_noise(results: ProtocolResults, noises=NOISES) -> ProtocolResults:
    """Give every run made-up counts under noise."""
    for i, run in enumerate(results.runs):
        random = np.random.default_rng(i)
        counts = {name: torch.from_numpy(random.integers(1, 9, (3, 3, 3))) for name in noises}
        write_noisy(run.path / "test", counts, results.conditions, results.class_names)
    return load_results(results.folder)


def test_noisy_scores_are_pooled_over_folds_and_averaged_over_seeds(make_protocol):
    results = with_noise(make_protocol())
    scores = noise_scores(results).set_index(["noise", "level", "condition", "metric"])["value"]
    expected = []
    for seed in (0, 1):
        runs = [run for run in results.runs if run.seed == seed]
        counts = sum(results.noisy_confusion(run)["text@gaussian-0.5"] for run in runs)
        expected.append(unweighted_average_recall(torch.tensor(counts)).item())
    assert scores["Gaussian noise", 0.5, "text", "uar"] == pytest.approx(np.mean(expected))
    single = [scores["Gaussian noise", 1, name, "uar"] for name in ("audio", "text")]
    assert scores["Gaussian noise", 1, "mean of incomplete", "uar"] == pytest.approx(np.mean(single))
    assert set(scores.index.get_level_values("noise")) == {"Gaussian noise", "impulse noise in audio"}


def test_level_0_is_the_test_without_noise(make_protocol):
    results = with_noise(make_protocol(gaps=["0-04"]))
    scores = noise_scores(results).set_index(["noise", "level", "condition", "metric"])["value"]
    pooled = summarize(results, intervals=False).set_index(["condition", "metric"])["pooled"]
    for condition in ("audio", "audio+text", "mean of incomplete"):
        for kind in ("Gaussian noise", "impulse noise in audio"):
            assert scores[kind, 0.0, condition, "war"] == pytest.approx(pooled[condition, "war"])


def test_noisy_scores_are_in_the_tidy_table_but_in_no_summary(make_protocol):
    results = with_noise(make_protocol())
    write_results(results.folder)
    table = pd.read_csv(results.folder / "results.csv")
    names = set(table["condition"])
    assert {"text@gaussian-0.5", "mean of incomplete@gaussian-1", "audio+text@impulse-0.5-audio"} <= names
    row = table[(table["condition"] == "text@gaussian-0.5") & (table["metric"] == "uar")].iloc[0]
    counts = results.noisy_confusion(results.runs[0])["text@gaussian-0.5"]
    assert row["value"] == pytest.approx(unweighted_average_recall(torch.tensor(counts)).item(), abs=1e-6)
    assert row["n"] == counts.sum()
    assert not summarize(results)["condition"].str.contains("@").any()


def test_runs_of_different_noise_are_not_mixed(make_protocol):
    results = with_noise(make_protocol())
    (results.runs[1].path / "test" / "noise" / "confusion.csv").unlink()
    with pytest.raises(InputError, match=f"{results.runs[1].name}.*other noise"):
        noise_scores(results)
    with pytest.raises(InputError, match="without noise"):
        noise_scores(make_protocol("quiet"))


def test_a_missing_rate_takes_each_prediction_from_the_condition_of_its_mask(make_protocol):
    results = make_protocol(gaps=["1-07"])
    masks = missing_masks(results)
    assert sorted(masks["rate"].unique()) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]  # of two modalities half can be missing
    assert "1-07" not in set(masks["utterance_id"])
    assert masks.groupby("rate").size().unique() == [59]
    scores = missing_rate_scores(results).set_index(["rate", "metric"])["value"]
    predictions = results.predictions.set_index(["seed", "utterance_id", "condition"])
    right = [
        [predictions.loc[(seed, row.utterance_id, row.condition)] for row in masks[masks["rate"] == 0.4].itertuples()]
        for seed in (0, 1)
    ]
    accuracy = np.mean([[row["true"] == row["predicted"] for row in rows] for rows in right])
    assert scores[0.4, "war"] == pytest.approx(accuracy)
    pooled = summarize(results, intervals=False).set_index(["condition", "metric"])["pooled"]
    assert scores[0.0, "uar"] == pytest.approx(pooled["audio+text", "uar"])
    assert not masks.loc[masks["rate"] == 0.5, "condition"].str.contains("+", regex=False).any()


def test_methods_meet_the_same_masks(make_protocol):
    masks = missing_masks(make_protocol("first", random=1))
    pd.testing.assert_frame_equal(missing_masks(make_protocol("second", random=2)), masks)


def test_the_picture_holds_all_methods(make_protocol):
    first, second = with_noise(make_protocol("first")), make_protocol("second", random=3)
    missing = {one.about["method"]: missing_rate_scores(one) for one in (first, second)}
    figure = plot_robustness({"first": noise_scores(first)}, missing, "audio+text")
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    assert titles == [
        *("Gaussian noise: everything present", "Gaussian noise: mean of incomplete"),
        *("impulse noise in audio: everything present", "impulse noise in audio: mean of incomplete"),
        "random missing modalities",
    ]
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == ["first", "second"]
    levels = figure.axes[0].get_lines()[0].get_xdata()
    assert list(levels) == [0, 0.5, 1]


@pytest.mark.filterwarnings("error")
def test_the_report_says_what_is_missing_and_keeps_the_masks(make_protocol, tmp_path):
    noisy, quiet = with_noise(make_protocol("noisy")), make_protocol("quiet")
    said: list[str] = []
    write_report([noisy.folder, quiet.folder], tmp_path / "report", say=said.append)
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| Gaussian noise, level 0.5 | " in text
    assert "| missing rate 0.3 | " in text
    assert any("quiet" in line and "without noise" in line for line in said)
    masks = pd.read_csv(tmp_path / "report" / MASKS)
    pd.testing.assert_frame_equal(masks, missing_masks(noisy))
    assert (tmp_path / "report" / "figures" / "robustness.pdf").is_file()
    write_report([quiet.folder], tmp_path / "other", say=said.append)
    assert "noise" not in (tmp_path / "other" / "report.md").read_text(encoding="utf-8")
