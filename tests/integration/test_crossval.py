"""`cmarr crossval` with real training on the tiny corpus: results, restarts, failures."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.analysis.statistics import paired_test


@pytest.fixture(scope="module")
def words(config: Path, tiny_store: Path) -> list[str]:
    return ["-c", str(config), "--", "--data.store", str(tiny_store)]


def command(folder: Path, words: list[str], *options: str) -> list[str]:
    cut = words.index("--")
    own = [*words[:cut], "--out", str(folder), *options]
    return [sys.executable, "-m", "cmarr_lightning", "crossval", *own, *words[cut:]]


def crossval(folder: Path, words: list[str], *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, words, *options), capture_output=True, text=True, check=False)


def test_folds_are_trained_tested_and_summarised(tiny_crossval: tuple[Path, str]):
    folder, printed = tiny_crossval
    assert "CM-ARR on synthetic tiny, 3 folds, 1 seed (synthetic data)" in printed
    assert "3 of 3 runs" in printed
    expected = {"results.csv", "summary.csv", "summary.md", "crossval.json"}
    expected |= {f"fold-{fold}_seed-0" for fold in range(3)}
    assert expected <= {path.name for path in folder.iterdir()}
    results = load_results(folder)
    assert results.table.groupby("stage").size().to_dict() == {"test": 72, "validate": 72}
    for run in results.runs:
        assert run.about["finished"] == ["fit", "validate", "test"]
        assert run.about["config"]["data"]["init_args"]["fold"] == run.fold
        assert run.about["data_checksum"] == json.loads((run.path / "test" / "about.json").read_text())["data_checksum"]
        assert json.loads((run.path / "test" / "about.json").read_text())["fold"] == run.fold


def test_predictions_are_the_rows_that_were_scored(tiny_protocol: Path):
    results = load_results(tiny_protocol)
    rows = results.predictions
    assert rows.groupby(["fold", "condition"]).size().tolist() == [60] * 21
    for run, counts in zip(results.runs, results.confusion, strict=True):
        for condition, expected in zip(results.conditions, counts, strict=True):
            part = rows[(rows["fold"] == run.fold) & (rows["condition"] == condition)]
            pair = [pd.Categorical(part[column], results.class_names) for column in ("true", "predicted")]
            np.testing.assert_array_equal(pd.crosstab(*pair, dropna=False).to_numpy(), expected)
    probabilities = rows[[f"p_{name}" for name in results.class_names]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (np.array(results.class_names)[probabilities.to_numpy().argmax(1)] == rows["predicted"]).all()


def test_incomplete_utterances_are_predicted_as_they_are(
    cmarr: Callable[..., int], config: Path, gappy_store: Path, tmp_path: Path
):
    data = ("--data.store", gappy_store, "--data.init_args.batch_size", 8)
    assert cmarr("fit", "-c", config, *data, "--run", "run", "--trainer.max_epochs", 1) == 0
    assert cmarr("test", "--run", "run") == 0
    rows = pd.read_parquet(tmp_path / "run" / "test" / "predictions.parquet")
    counts = pd.read_csv(tmp_path / "run" / "test" / "confusion.csv")
    sizes = rows.groupby("condition").size()
    assert sizes["available"] == 31
    assert (sizes.drop("available") < 31).all()
    assert sizes.drop("available").min() == sizes.drop("available").max()
    keys = ["condition", "true", "predicted"]
    found = rows.groupby(keys).size()
    expected = counts[counts["count"] > 0].set_index(keys)["count"].sort_index()
    pd.testing.assert_series_equal(found, expected, check_names=False)


def test_the_support_vector_machine_is_compared_on_the_same_rows(
    tiny_protocol: Path, words: list[str], tmp_path: Path, cmarr: Callable[..., int]
):
    pytest.importorskip("sklearn")
    cut = words.index("--")
    assert cmarr("baseline", *words[:cut], "--out", tmp_path / "svm", "--folds", "0,1,2", *words[cut:]) == 0
    test = paired_test(load_results(tmp_path / "svm"), load_results(tiny_protocol), resamples=100)
    assert len(test) == 8 * 3
    assert (test["n"] == 180).all()


def test_settings_are_chosen_before_the_test_fold_is_scored(words: list[str], tmp_path: Path):
    folder, options = tmp_path / "cv", ("--folds", "0")
    process = crossval(folder, words, *options, "--no-test")
    assert process.returncode == 0, process.stderr
    assert "validation folds, mean over the runs" in process.stdout
    assert not list(folder.rglob("test"))
    assert set(pd.read_csv(folder / "results.csv")["stage"]) == {"validate"}
    checkpoints = folder / "fold-0_seed-0" / "checkpoints"
    trained = {path.name.split("-")[0]: path.stat().st_mtime_ns for path in checkpoints.iterdir()}
    assert set(trained) == {"best", "last.ckpt"}

    process = crossval(folder, words, *options)
    assert process.returncode == 0, process.stderr
    assert "CM-ARR on synthetic tiny, 1 fold, 1 seed" in process.stdout
    assert [path.stat().st_mtime_ns for path in checkpoints.iterdir()] == [trained["best"]]  # neither trained again
    assert load_results(folder).runs[0].about["finished"] == ["fit", "validate", "test"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_killed_and_started_again_it_goes_on(words: list[str], tmp_path: Path):
    words = [*words, "--trainer.max_epochs", "20"]
    folder, options = tmp_path / "cv", ("--folds", "1", "--jobs", "1")
    process = subprocess.Popen(command(folder, words, *options), stdout=subprocess.DEVNULL)
    last = folder / "fold-1_seed-0" / "checkpoints" / "last.ckpt"
    end = time.monotonic() + 120
    while not last.exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the child notices and ends
    reached = torch.load(last, weights_only=True)["epoch"]
    assert reached < 19
    assert not (folder / "fold-1_seed-0" / "test").exists()

    again = crossval(folder, words, *options)
    assert again.returncode == 0, again.stderr
    assert "fold-1_seed-0: going on from its checkpoint" in again.stdout
    epochs = pd.read_csv(folder / "fold-1_seed-0" / "logs" / "version_1" / "metrics.csv")["epoch"]
    assert (epochs.min(), epochs.max()) == (reached + 1, 19)
    assert len(load_results(folder).runs) == 1


def test_a_fold_that_fails_is_told_while_the_others_go_on(tiny_protocol: Path, words: list[str], tmp_path: Path):
    folder = Path(shutil.copytree(tiny_protocol, tmp_path / "cv"))
    shutil.rmtree(folder / "fold-1_seed-0" / "test")
    about = json.loads((folder / "fold-1_seed-0" / "about.json").read_text())
    (folder / "fold-1_seed-0" / "about.json").write_text(json.dumps(about | {"finished": ["fit", "validate"]}))
    for checkpoint in (folder / "fold-1_seed-0" / "checkpoints").glob("best-*.ckpt"):
        checkpoint.write_bytes(b"damaged")
    before = {path: path.stat().st_mtime_ns for path in (folder / "fold-0_seed-0").rglob("*")}
    process = crossval(folder, words, "--folds", "0,1")
    assert process.returncode == 1
    assert {path: path.stat().st_mtime_ns for path in (folder / "fold-0_seed-0").rglob("*")} == before
    assert "fold-1_seed-0 failed (exit code 2); the end of" in process.stdout
    assert "cannot be loaded as a checkpoint" in process.stdout
    assert "CM-ARR on synthetic tiny, 2 folds, 1 seed" in process.stdout
    assert "unfinished, left out: fold-1_seed-0" in (folder / "summary.md").read_text()
