"""Noise from the command line: every task trains with it and is tested under it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SEVEN = ["audio", "video", "text", "audio+video", "audio+text", "video+text", "audio+video+text"]
NOISES = ["gaussian-0.5", "gaussian-1-audio"]
TEST_NOISE = ("--data.init_args.test_noise", f"[{','.join(NOISES)}]")


def test_every_condition_is_scored_under_every_noise(
    cmarr: Callable[..., int], trained_run: Path, capsys: pytest.CaptureFixture[str]
):
    assert cmarr("test", "--run", "run") == 0
    clean = pd.read_csv(trained_run / "test" / "scores.csv")
    assert not (trained_run / "test" / "noise").exists()
    capsys.readouterr()

    assert cmarr("test", "--run", "run", *TEST_NOISE) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NOISES)
    pd.testing.assert_frame_equal(pd.read_csv(trained_run / "test" / "scores.csv"), clean)
    predictions = pd.read_parquet(trained_run / "test" / "predictions.parquet")
    assert predictions["condition"].value_counts().to_dict() == dict.fromkeys(SEVEN, 60)  # clean ones only
    noisy = pd.read_csv(trained_run / "test" / "noise" / "scores.csv")
    names = [f"{name}@{noise}" for noise in NOISES for name in [*SEVEN, "mean of incomplete"]]
    assert noisy["condition"].tolist() == names
    assert set(noisy["n"]) == {60}
    # Noise in audio changes nothing where there is no audio.
    same = noisy.set_index("condition")[["war", "uar", "f1"]]
    uar = same.loc["audio+text@gaussian-0.5", "uar"]
    for name in ("video", "text", "video+text"):
        expected = clean.set_index("condition").loc[name, ["war", "uar", "f1"]]
        np.testing.assert_allclose(same.loc[f"{name}@gaussian-1-audio"], expected, atol=1e-6)
    assert (same.loc["video@gaussian-0.5"] != clean.set_index("condition").loc["video", ["war", "uar", "f1"]]).any()

    log = max((trained_run / "logs").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    logged = pd.read_csv(log).iloc[-1]
    assert logged["test/uar/audio+text@gaussian-0.5"] == pytest.approx(uar, abs=1e-6)
    mean = same.loc["mean of incomplete@gaussian-0.5", "war"]
    assert logged["test/war_missing_mean@gaussian-0.5"] == pytest.approx(mean, abs=1e-6)

    assert cmarr("test", "--run", "run", *TEST_NOISE, "--seed_everything", 7) == 0  # the noise of a test is one
    pd.testing.assert_frame_equal(pd.read_csv(trained_run / "test" / "noise" / "scores.csv"), noisy)

    assert cmarr("test", "--run", "run") == 0  # replaces the test before it
    assert not (trained_run / "test" / "noise").exists()


@pytest.mark.parametrize("task", ["CMARRTask", "MMINTask", "IFMMINTask", "NMERTask", "FusionTask"])
def test_every_task_trains_with_noise(
    cmarr: Callable[..., int], tiny_store: Path, config: Path, tmp_path: Path, task: str
):
    words = ["-c", config, "--data.store", tiny_store, "--model", task, "--data.draw", "incomplete", *TEST_NOISE]
    if task not in {"CMARRTask", "FusionTask"}:
        words += ["--model.stage1_epochs", 1]
    losses = []
    for run, noise in (("clean", []), ("noisy", ["--data.noise.level", "0.7"])):
        assert cmarr("fit", *words, *noise, "--run", run) == 0
        losses.append(pd.read_csv(tmp_path / run / "logs" / "version_0" / "metrics.csv")["train/loss"].dropna())
    assert np.isfinite(losses[1]).all()
    assert losses[1].iloc[-1] != losses[0].iloc[-1]
    assert cmarr("test", "--run", "noisy") == 0  # the configuration holds the noise of the test
    assert len(pd.read_csv(tmp_path / "noisy" / "test" / "noise" / "scores.csv")) == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.noise.level", "2"], "level is 2.0"),
        (["--data.noise.type", "pink"], "unknown type 'pink'"),
        (["--data.noise.modalities", "[smell]"], "no modality 'smell'"),
        (["--data.test_noise", "[gaussian-1.5]"], "level 1.5"),
        (["--data.test_noise", "[gaussian-0.5-smell]"], "no modality 'smell'"),
        (["--data.test_noise", "[gaussian-0.5,gaussian-0.50]"], "twice"),
    ],
)
def test_noise_that_cannot_be_is_refused_before_training(
    cmarr: Callable[..., int], tiny_store: Path, config: Path, capsys: pytest.CaptureFixture[str], words, message
):
    assert cmarr("fit", "-c", config, "--data.store", tiny_store, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Remedy" in said
