"""`cmarr benchmark`: one real measurement of the tiny corpus, the rest with the measuring replaced."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cmarr_lightning.analysis.benchmark import Measurement
from cmarr_lightning.commands import benchmark, run_command
from cmarr_lightning.data.corpora import synthetic
from cmarr_lightning.data.store import FeatureStore

STEPS, BATCH = 4, 16


@pytest.fixture(scope="module")
def measured(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a real run prints and writes."""
    out = tmp_path_factory.mktemp("benchmark") / "new" / "figures.json"
    options = ["--threads", "2", "--steps", str(STEPS), "--batch-size", str(BATCH), "--out", str(out)]
    with redirect_stdout(StringIO()) as printed:
        assert run_command(["benchmark", "--store", str(tiny_store), *options]) == 0
    return printed.getvalue(), json.loads(out.read_text())


def test_report_says_on_what_it_was_measured(measured: tuple[str, dict[str, Any]], tiny_store: Path) -> None:
    printed, report = measured
    assert (report["task"], report["data"], report["synthetic"]) == ("CMARRTask", "synthetic tiny", True)
    assert report["data_checksum"] == FeatureStore.open(tiny_store).checksum
    assert {"processor", "cores", "python", "torch", "lightning", "commit"} <= set(report["machine"])
    assert "CMARRTask, synthetic tiny (synthetic), batches of 16" in printed
    assert all(reference in printed for reference in ("<= 0.2", "2.2", "<= 0.1", "3.7", "<= 5 %", "2 threads"))


def test_figures_are_those_of_the_run_that_was_asked_for(measured: tuple[str, dict[str, Any]]) -> None:
    (m,) = measured[1]["measurements"]
    assert m["threads"] == 2  # although this process, and its environment, have one
    assert (m["batch_size"], m["conditions"], m["passes"]) == (BATCH, 7, 5)
    assert m["steps"] >= STEPS
    assert m["steps_per_epoch"] == 180 // BATCH  # six of the eight speakers train


def test_figures_fit_together(measured: tuple[str, dict[str, Any]]) -> None:
    (m,) = measured[1]["measurements"]
    assert all(value > 0 for key, value in m.items() if key != "others_cores")
    for name in ("step", "utterance"):
        assert m[f"{name}_s_p10"] <= m[f"{name}_s"]
        assert m[f"{name}_cpu_s_p10"] <= m[f"{name}_cpu_s"]
    assert m["load_s"] < m["step_s"]
    assert m["training_gflop_per_utterance"] == pytest.approx(m["step_gflop"] / BATCH)
    assert m["inference_gflop_per_utterance"] == m["utterance_gflop"]
    assert 0.2e9 < m["peak_memory_bytes"] < 2e9
    assert m["ten_folds_s"] > 10 * (m["setup_s"] + m["test_s"])


def test_synthetic_corpus_is_written_where_no_store_is(
    measured: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _replace_measuring(monkeypatch, measured, others_cores=0.0)
    made = []

    def tiny(out: Path, preset: str) -> FeatureStore:
        made.append(preset)
        return synthesize(out, "tiny")

    synthesize = synthetic.synthesize
    monkeypatch.setattr(synthetic, "synthesize", tiny)
    command = ["benchmark", "--store", str(tmp_path / "store"), "--threads", "1"]
    assert run_command(command) == run_command(command) == 0
    assert made == ["iemocap"]  # the second time it is there
    assert FeatureStore.open(tmp_path / "store").synthetic


@pytest.mark.parametrize(("others", "warns"), [(0.3, True), (0.1, False), (None, False)])
def test_busy_neighbours_are_warned_of(
    others: float | None,
    warns: bool,
    measured: tuple[str, dict[str, Any]],
    tiny_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _replace_measuring(monkeypatch, measured, others_cores=others)
    assert run_command(["benchmark", "--store", str(tiny_store), "--threads", "1"]) == 0
    assert ("warning: other processes used 0.30 cores" in capsys.readouterr().out) == warns


def test_error_of_the_run_is_passed_on_and_nothing_written(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = subprocess.CompletedProcess([], 2, "", "a warning\ncmarr: error: too bad. Remedy: try again.\n")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *_, **__: failed)
    out = tmp_path / "figures.json"
    assert run_command(["benchmark", "--store", str(tiny_store), "--out", str(out)]) == 2
    assert capsys.readouterr().err == "cmarr: error: `cmarr fit` stopped: too bad. Remedy: try again.\n"
    assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--threads", "1,0"], ["--threads", "two"], ["--steps", "0"], ["--batch-size", "-1"]]
)
def test_numbers_that_make_no_sense_exit_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(["benchmark", *words])
    assert caught.value.code == 2
    assert "no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("stage", [1, 2])
def test_each_stage_of_a_peer_is_measured_by_itself(
    stage: int, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs of 4 steps: 3 of them to warm up, and the last of each epoch is left out."""
    fit = benchmark._cmarr
    monkeypatch.setattr(benchmark, "_cmarr", lambda words, threads: fit(words, threads) if words[0] == "fit" else 1.0)
    options = [*benchmark._stage_options(stage), "--model.init_args.embed_dim", "16"]
    m = benchmark._measure(FeatureStore.open(tiny_store), "MMINTask", BATCH, 6, 1, tmp_path / "run", options)
    assert m.steps == 6
    log = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv").groupby("epoch").first()
    of_student = log["val/uar_missing_mean"].notna().tolist()  # NaN while the teacher is trained
    assert of_student == ([False] * 3 + [True] if stage == 1 else [True] * 3)


def test_stage_of_a_method_without_stages_is_refused(tiny_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["benchmark", "--store", str(tiny_store), "--stage", "1"]) == 2
    assert "CMARRTask is not trained in two stages" in capsys.readouterr().err


def _replace_measuring(
    monkeypatch: pytest.MonkeyPatch, measured: tuple[str, dict[str, Any]], others_cores: float | None
) -> None:
    figures = measured[1]["measurements"][0]
    fields = {field.name: figures[field.name] for field in dataclasses.fields(Measurement)}
    known = Measurement(**{**fields, "others_cores": others_cores})
    monkeypatch.setattr(benchmark, "_measure", lambda *_: known)
