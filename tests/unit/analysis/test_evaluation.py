"""The files of one evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from cmarr_lightning.analysis.evaluation import prediction_table, title_of, write_evaluation

CLASSES = ["calm", "glad"]
CONDITIONS = ["audio", "text", "audio+text"]
CONFUSION = torch.tensor([[[2, 1], [0, 1]], [[1, 2], [1, 0]], [[3, 0], [0, 1]]])
ABOUT = {"stage": "test", "data": "made up", "fold": 1, "synthetic": True}


def test_everything_is_written(tmp_path: Path):
    predictions = pd.DataFrame({"utterance_id": ["a"]})
    scores = write_evaluation(
        tmp_path / "test", CONFUSION, CONDITIONS, CLASSES, num_incomplete=2, about=ABOUT, predictions=predictions
    )
    files = {"about.json", "confusion.csv", "confusion.png", "predictions.parquet", "scores.csv"}
    assert {path.name for path in (tmp_path / "test").iterdir()} == files
    assert scores["condition"].tolist() == [*CONDITIONS, "mean of incomplete"]
    assert scores["uar"].tolist() == pytest.approx([5 / 6, 1 / 6, 1, 0.5])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "test" / "scores.csv"), scores, atol=1e-6)
    assert json.loads((tmp_path / "test" / "about.json").read_text()) == ABOUT
    assert (tmp_path / "test" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    counts = pd.read_csv(tmp_path / "test" / "confusion.csv")
    row = counts.query("condition == 'text' and true == 'calm' and predicted == 'glad'")
    assert row["count"].tolist() == [2]


def test_without_predictions_there_is_no_file_of_them(tmp_path: Path):
    write_evaluation(tmp_path, CONFUSION, CONDITIONS, CLASSES, num_incomplete=2, about=ABOUT)
    assert not (tmp_path / "predictions.parquet").exists()


def test_synthetic_data_are_called_so():
    assert title_of(ABOUT) == "test: made up, fold 1 (synthetic data)"
    assert title_of({"stage": "test", "data": "real", "fold": 0, "synthetic": False}) == "test: real, fold 0"


def test_predictions_are_text_with_one_probability_per_class():
    manifest = pd.DataFrame({"utterance_id": ["a", "b"], "session": ["1", "2"], "speaker": ["x", "y"]})
    table = prediction_table(
        manifest, ["audio", "text"], CLASSES, [0, 1], [1, 1], torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    )
    assert table.columns.tolist() == [
        *("utterance_id", "session", "speaker", "condition", "true", "predicted", "p_calm", "p_glad")
    ]
    assert table.iloc[0].tolist() == ["a", "1", "x", "audio", "calm", "glad", 0.25, 0.75]


def test_unknown_speakers_and_missing_probabilities():
    table = prediction_table(pd.DataFrame({"utterance_id": ["a"]}), ["audio"], CLASSES, [0], [0])
    assert table.iloc[0].to_dict() == {
        **{"utterance_id": "a", "session": "", "speaker": ""},
        **{"condition": "audio", "true": "calm", "predicted": "calm"},
    }
