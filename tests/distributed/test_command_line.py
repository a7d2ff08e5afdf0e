"""`--trainer.strategy ddp --trainer.devices 2` in real processes: the same numbers, every utterance once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.cli import main
from cmarr_lightning.data.store import FeatureStore

TWO = ("--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cmarr_in_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Path]:
    """Get a function that runs the command line with two processes, and the folder in which it does."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cmarr_lightning", *map(str, words), *TWO]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    return run, folder


@pytest.fixture(scope="module")
def both(cmarr_in_two: tuple[Command, Path], gappy_store: Path, config: Path) -> tuple[Path, Path]:
    """A run that one process trained, tested and used for prediction, and a copy for which two processes did."""
    command, folder = cmarr_in_two
    one, two = folder / "one", folder / "two"
    noise = ("--data.test_noise", "[gaussian-0.5]")
    assert main(["fit", "-c", str(config), "--data.store", str(gappy_store), "--run", str(one), *noise]) == 0
    shutil.copytree(one, two)
    for stage, *options in (("test",), ("predict", "--predictions.conditions", "all")):
        small = ("--data.eval_batch_size", "10")
        assert main([stage, "--run", str(one), *options]) == 0
        done = command(stage, "--run", two, *options, *small)
        assert done.returncode == 0, done.stderr
    return one, two


def test_test_scores_have_no_padded_duplicates(both: tuple[Path, Path]):
    scores, confusion = ([pd.read_csv(run / "test" / file) for run in both] for file in ("scores.csv", "confusion.csv"))
    assert scores[0].set_index("condition").loc["available", "n"] == 31  # odd: one row is repeated on the second rank
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    pd.testing.assert_frame_equal(*confusion, check_exact=True)


def test_scores_under_noise_are_those_of_one_process(both: tuple[Path, Path]):
    one, two = (pd.read_csv(run / "test" / "noise" / "confusion.csv") for run in both)
    assert one["count"].sum() > 0
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_logged_test_metrics_equal_those_of_one_process(both: tuple[Path, Path]):
    logged = [pd.read_csv(run / "logs" / "version_1" / "metrics.csv") for run in both]
    assert "test/uar/available" in logged[0]
    pd.testing.assert_frame_equal(logged[0], logged[1][logged[0].columns], check_exact=True)


def test_the_rows_of_the_test_are_predicted_once(both: tuple[Path, Path]):
    one, two = (pd.read_parquet(run / "test" / "predictions.parquet") for run in both)
    assert not two.duplicated(["utterance_id", "condition"]).any()
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)


def test_predict_writes_every_utterance_once(both: tuple[Path, Path], gappy_store: Path):
    one, two = (pd.read_parquet(run / "predictions.parquet") for run in both)
    store = FeatureStore.open(gappy_store)
    assert two["utterance_id"].unique().tolist() == store.manifest["utterance_id"].tolist()
    assert not two.duplicated(["utterance_id", "condition"]).any()
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)


def test_two_processes_train_one_run(cmarr_in_two: tuple[Command, Path], gappy_store: Path, config: Path):
    """Rows lack modalities, so that the ranks have different ones; the run has one folder, not one per process."""
    command, folder = cmarr_in_two
    done = command("fit", "-c", config, "--data.store", gappy_store, "--data.batch_size", 8)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    assert done.stdout.count("Run: ") == 1
    assert len(list((run / "checkpoints").iterdir())) == 2
    logged = pd.read_csv(run / "logs" / "version_0" / "metrics.csv").groupby("epoch").first()
    assert len(logged) == 2
    assert np.isfinite(logged.to_numpy()).all()
