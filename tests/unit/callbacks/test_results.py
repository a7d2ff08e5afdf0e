from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Command = Callable[..., int]


def test_training_writes_and_prints_no_scores(trained_run: Path):
    assert not (trained_run / "validate").exists()
    assert not (trained_run / "test").exists()


def test_a_second_evaluation_replaces_the_first(
    cmarr: Command, trained_run: Path, other_store: Path, capsys: pytest.CaptureFixture[str]
):
    folder = trained_run / "test"
    kept = []
    for fold in (0, 2):
        assert cmarr("test", "--run", "run", "--data.store", other_store, "--data.fold", fold) == 0
        assert f"fold {fold}" in capsys.readouterr().out
        assert json.loads((folder / "about.json").read_text())["fold"] == fold
        kept.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert kept[0].keys() == kept[1].keys() >= {"scores.csv", "confusion.csv", "confusion.png", "about.json"}
    assert all(kept[0][name] != kept[1][name] for name in kept[0])


def test_the_kept_predictions_are_the_counted_rows(cmarr: Command, trained_run: Path):
    assert cmarr("test", "--run", "run") == 0
    predictions = pd.read_parquet(trained_run / "test" / "predictions.parquet")
    counts = pd.read_csv(trained_run / "test" / "confusion.csv").set_index(["condition", "true", "predicted"])["count"]
    found = predictions.groupby(["condition", "true", "predicted"]).size()
    assert found.reindex(counts.index, fill_value=0).tolist() == counts.tolist()
    assert found.sum() == counts.sum()
