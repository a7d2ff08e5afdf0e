"""`cmarr baseline` in process."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.commands import run_command

pytest.importorskip("sklearn")


@pytest.fixture
def baseline(monkeypatch: pytest.MonkeyPatch, tiny_store: Path, tmp_path: Path):
    """Run the command on the tiny store; the configuration is not read by another process."""
    data = {"class_path": "cmarr_lightning.FeatureDataModule", "init_args": {"store": str(tiny_store)}}
    monkeypatch.setattr("cmarr_lightning.crossval.plan.resolve_config", lambda words: {"data": data})
    return lambda *words: run_command(["baseline", "-c", "mine.yaml", "--out", str(tmp_path / "svm"), *words])


def test_folds_are_tested_and_summarised(baseline, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert baseline("--folds", "1,2") == 0
    results = load_results(tmp_path / "svm")
    assert [run.name for run in results.runs] == ["fold-1_seed-0", "fold-2_seed-0"]
    assert results.confusion.sum((-2, -1)).tolist() == [[60] * 7, [60] * 7]
    assert len(results.about["config"]["settings"]) == 9
    chosen = json.loads((tmp_path / "svm" / "fold-1_seed-0" / "about.json").read_text())["chosen"]
    assert list(chosen) == results.conditions
    assert all(settings in results.about["config"]["settings"] for settings in chosen.values())
    assert pd.read_csv(tmp_path / "svm" / "results.csv")["method"].unique().tolist() == ["RBF-SVM"]
    assert "RBF-SVM on synthetic tiny, 2 folds, 1 seed (synthetic data)" in capsys.readouterr().out
    text = (tmp_path / "svm" / "summary.md").read_text()
    assert f"`cmarr baseline -c mine.yaml --out {tmp_path / 'svm'} --folds 1,2 --machine svm`" in text


def test_logistic_regression_names_itself(baseline, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert baseline("--machine", "logistic", "--folds", "0") == 0
    assert pd.read_csv(tmp_path / "svm" / "results.csv")["method"].unique().tolist() == ["logistic regression"]
    assert baseline("--folds", "1") == 2  # the folder holds another method
    assert str(tmp_path / "svm") in capsys.readouterr().err


def test_finished_folds_stay(baseline, tmp_path: Path):
    assert baseline("--folds", "1") == 0
    about = tmp_path / "svm" / "fold-1_seed-0" / "about.json"
    assert json.loads(about.read_text())["finished"] == ["test"]
    kept = about.stat().st_mtime_ns
    assert baseline("--folds", "0,1") == 0
    assert about.stat().st_mtime_ns == kept
    assert len(load_results(tmp_path / "svm").runs) == 2


def test_without_scikit_learn_nothing_is_made(
    baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("cmarr_lightning.analysis.kernel_baseline.find_spec", lambda name: None)
    assert baseline() == 2
    assert "pip install -c constraints.txt -e '.[baselines]'" in capsys.readouterr().err
    assert not (tmp_path / "svm").exists()
