"""Two to six modalities, vectors, the options of the task and bf16 through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data.store import FeatureStore

Command = Callable[..., int]
WriteStore = Callable[..., FeatureStore]


@pytest.fixture
def fit_and_test(cmarr: Command, config: Path, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    """Train two epochs and test; get what was logged in training and the table of scores."""

    def run(store: Path, *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        assert cmarr("fit", "-c", config, "--data.store", store, "--run", "run", *words) == 0
        assert cmarr("test", "--run", "run") == 0
        logged = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv").groupby("epoch").first()
        assert np.isfinite(logged.filter(like="train/").to_numpy()).all()
        assert logged["train/flow_roundtrip_error"].max() < 1e-4
        return logged, pd.read_csv(tmp_path / "run" / "test" / "scores.csv").set_index("condition")

    return run


def test_two_modalities_of_three(fit_and_test: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], tiny_store: Path):
    _, scores = fit_and_test(tiny_store, "--data.modalities", "[text,audio]")
    assert scores.index.tolist() == ["text", "audio", "text+audio", "mean of incomplete"]


@pytest.mark.parametrize("data", ["IEMOCAPDataModule", "MSPImprovDataModule"])
def test_the_corpora_are_named_by_their_class_alone(cmarr: Command, tiny_store: Path, tmp_path: Path, data: str):
    options = {
        "--data": data,
        "--data.store": tiny_store,
        "--data.batch_size": 32,
        "--model": "CMARRTask",
        "--model.embed_dim": 16,
        "--model.num_heads": 2,
        "--trainer.enable_progress_bar": "false",
        "--trainer.max_epochs": 1,
        "--trainer.accelerator": "cpu",
    }
    assert cmarr("fit", *(word for option in options.items() for word in option), "--run", "run") == 0
    assert cmarr("validate", "--run", "run") == 0
    counts = pd.read_csv(tmp_path / "run" / "validate" / "confusion.csv")
    assert sorted(set(counts["true"])) == ["angry", "happy", "neutral", "sad"]


def test_six_modalities_with_drawn_conditions(cmarr: Command, config: Path, write_store: WriteStore, tmp_path: Path):
    observed = np.random.default_rng(0).random((80, 6)) > 0.05
    store = write_store(tmp_path / "six", observed).path
    drawn = ("--model.train_conditions", "drawn", "--trainer.max_epochs", "1")
    assert cmarr("fit", "-c", config, "--data.store", store, "--run", "run", *drawn) == 0
    logged = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv").columns
    conditions = {name.removeprefix("val/uar/") for name in logged if name.startswith("val/uar/")}
    assert len(conditions) == 63 + 1
    assert {"m0", "m5", "m0+m2+m4", "m0+m1+m2+m3+m4+m5", "available"} <= conditions


def test_vectors_only(
    fit_and_test: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], write_store: WriteStore, tmp_path: Path
):
    store = write_store(tmp_path / "vectors", np.ones((80, 2), dtype=bool), vectors=True)
    assert set(store.kinds.values()) == {"vector"}
    _, scores = fit_and_test(store.path)
    assert scores.index[:3].tolist() == ["m0", "m1", "m0+m1"]


def test_drawn_and_all_conditions_train_differently(
    fit_and_test: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], trained_run: Path, tiny_store: Path, tmp_path: Path
):
    trained_run.rename(tmp_path / "all")
    drawn, _ = fit_and_test(tiny_store, "--model.train_conditions", "drawn", "--data.draw", "incomplete")
    every = pd.read_csv(tmp_path / "all" / "logs" / "version_0" / "metrics.csv").groupby("epoch").first()
    assert not drawn["train/loss_cls"].eq(every["train/loss_cls"]).any()


def test_bf16_mixed_trains_and_its_flows_stay_invertible(
    fit_and_test: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], tiny_store: Path
):
    options = ("--trainer.precision", "bf16-mixed", "--trainer.max_epochs", "8", "--model.learning_rate", "3e-3")
    logged, scores = fit_and_test(tiny_store, *options)
    for term in ("cls", "align"):
        assert logged[f"train/loss_{term}"].iloc[-1] < logged[f"train/loss_{term}"].iloc[0]
    assert np.isfinite(scores.to_numpy()).all()


def test_bf16_scores_agree_with_float32(cmarr: Command, trained_run: Path):
    """Scoring in bfloat16 moves a probability by rounding, not by a broken inverse."""
    for precision in ("32-true", "bf16-mixed"):
        options = ("--trainer.precision", precision, "--predictions.conditions", "all")
        assert cmarr("predict", "--run", "run", *options, "--predictions.file", f"{precision}.parquet") == 0
    exact, rounded = (
        pd.read_parquet(trained_run / f"{name}.parquet").filter(like="p_") for name in ("32-true", "bf16-mixed")
    )
    difference = np.abs(exact - rounded).to_numpy().max()
    assert 0 < difference < 0.03
