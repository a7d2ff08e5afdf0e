"""Run folders, resuming, determinism, the saved configuration and the options as a whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import cmarr_lightning
from cmarr_lightning import CMARRTask

Command = Callable[..., int]


def metrics(run: Path) -> pd.DataFrame:
    """Join what all stages of a run logged, in the order in which they ran."""
    return pd.concat([pd.read_csv(path) for path in sorted((run / "logs").glob("*/metrics.csv"))])


def by_epoch(run: Path) -> pd.DataFrame:
    return metrics(run).groupby("epoch").first().drop(columns="step")


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def fit(cmarr: Command, config: Path, tiny_store: Path) -> Command:
    return lambda *words: cmarr("fit", "-c", config, "--data.store", tiny_store, *words)


class PowerCutError(RuntimeError):
    """What ends a training in the middle."""


@pytest.fixture
def cut_before_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the next training die before an epoch."""
    start = CMARRTask.on_train_epoch_start

    def cut(epoch: int) -> None:
        def die_or_start(task: CMARRTask) -> None:
            if task.current_epoch == epoch:
                monkeypatch.setattr(CMARRTask, "on_train_epoch_start", start)
                raise PowerCutError
            start(task)

        monkeypatch.setattr(CMARRTask, "on_train_epoch_start", die_or_start)

    return cut


def test_a_resumed_run_equals_an_uninterrupted_one(
    fit: Command, cmarr: Command, cut_before_epoch: Callable[[int], None], tmp_path: Path
):
    """Cut in the middle of the flow phase, so that the schedule has to be resumed too."""
    options = ["--trainer.max_epochs", "5", "--model.schedule", "staged"]
    assert fit("--run", "whole", *options) == 0
    cut_before_epoch(2)
    with pytest.raises(PowerCutError):
        fit("--run", "cut", *options)
    assert metrics(tmp_path / "cut")["epoch"].max() == 1

    assert cmarr("fit", "--run", "cut", "--ckpt_path", "last") == 0

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pd.testing.assert_frame_equal(by_epoch(whole), by_epoch(cut), check_exact=True)
    for which in ("last", "best-*"):
        (a,), (b,) = (list((run / "checkpoints").glob(f"{which}.ckpt")) for run in (whole, cut))
        assert a.name == b.name
        torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)


def test_resuming_without_a_name_takes_the_latest_run(fit: Command, cmarr: Command, tmp_path: Path):
    for _ in range(2):
        assert fit("--trainer.max_epochs", "1") == 0
    older, latest = sorted((tmp_path / "runs").iterdir(), key=lambda run: (run / "config.yaml").stat().st_mtime)
    kept = bytes_below(older)
    assert cmarr("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2") == 0
    assert bytes_below(older) == kept
    assert by_epoch(latest).index.tolist() == [0, 1]
    assert yaml.safe_load((latest / "config.yaml").read_text())["trainer"]["max_epochs"] == 1


def test_one_seed_gives_the_same_numbers_and_another_seed_others(
    fit: Command, cmarr: Command, trained_run: Path, tmp_path: Path
):
    assert fit("--run", "same") == 0
    assert fit("--run", "other", "--seed_everything", 1) == 0
    for run in ("run", "same", "other"):
        assert cmarr("test", "--run", run) == 0
    first, same, other = (bytes_below(tmp_path / run) for run in ("run", "same", "other"))
    numbers = [name for name in first if name.endswith(("metrics.csv", "scores.csv", "confusion.csv"))]
    assert len(numbers) == 4
    for name in numbers:
        assert first[name] == same[name] != other[name], name
    assert not by_epoch(trained_run)["train/loss"].eq(by_epoch(tmp_path / "other")["train/loss"]).any()


def test_a_folder_that_holds_a_run_is_refused(fit: Command, trained_run: Path, capsys: pytest.CaptureFixture[str]):
    before = bytes_below(trained_run)
    assert fit("--run", "run") == 2
    assert "run holds a run already" in capsys.readouterr().err
    assert bytes_below(trained_run) == before


def test_a_run_that_took_the_folder_meanwhile_is_not_overwritten(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two processes may get the same --run at the same time; the first to train has it."""
    taken = tmp_path / "run" / "config.yaml"
    start = CMARRTask.on_fit_start

    def other_process_starts(task: CMARRTask) -> None:
        taken.parent.mkdir(exist_ok=True)
        taken.write_text("of another run")
        start(task)

    monkeypatch.setattr(CMARRTask, "on_fit_start", other_process_starts)
    assert fit("--run", "run") == 2
    assert "holds a run already" in capsys.readouterr().err
    assert taken.read_text() == "of another run"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_saved_configuration_repeats_the_run_in_another_folder(cmarr: Command, trained_run: Path, tmp_path: Path):
    before = bytes_below(trained_run)
    assert cmarr("fit", "-c", "run/config.yaml", "--run", "again") == 0
    assert bytes_below(trained_run) == before
    pd.testing.assert_frame_equal(by_epoch(trained_run), by_epoch(tmp_path / "again"))
    again = tmp_path / "again" / "config.yaml"
    assert again.read_bytes() == (trained_run / "config.yaml").read_bytes()
    assert str(tmp_path) not in again.read_text()


def test_the_saved_configuration_holds_the_modalities_and_classes_of_the_data(trained_run: Path):
    data = yaml.safe_load((trained_run / "config.yaml").read_text())["data"]["init_args"]
    assert data["modalities"] == ["audio", "video", "text"]
    assert data["classes"] == ["angry", "happy", "neutral", "sad"]


def test_fit_says_where_the_run_is(fit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert fit("--trainer.max_epochs", "1") == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert f"cmarr test --run runs/{run.name}" in capsys.readouterr().out


def test_print_config_lists_our_options(cmarr: Command, config: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cmarr("fit", "-c", config, "--data.store", "S", "--print_config")
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    trainer = printed["trainer"]
    assert {k: trainer[k] for k in ("gradient_clip_val", "log_every_n_steps", "logger", "callbacks")} == {
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 1,
        "logger": None,
        "callbacks": None,
    }
    # The trainer's options are Lightning's. Those of the model are documented with its class.
    printed["trainer"] = printed["model"]["init_args"] = None
    golden = (root / "tests" / "conf" / "options.txt").read_text(encoding="utf-8").split()
    assert keys(printed) == golden


def keys(tree: dict[str, object], prefix: str = "") -> list[str]:
    """List the dotted keys of a nested dictionary."""
    found: list[str] = []
    for key, value in tree.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def test_the_module_runs_like_the_command():
    python = [sys.executable, "-m", "cmarr_lightning"]
    assert subprocess.check_output([*python, "--version"], text=True).strip() == cmarr_lightning.__version__


def test_version_and_help_in_process(cmarr: Command, capsys: pytest.CaptureFixture[str]):
    assert cmarr("--version") == 0
    assert capsys.readouterr().out.strip() == cmarr_lightning.__version__
    assert cmarr() == cmarr("--help") == 0
    printed = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "prepare", "inspect", "synthesize"):
        assert f"\n  {command} " in printed


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_every_stage_explains_its_options(cmarr: Command, stage: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cmarr(stage, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--data", "--model", "--trainer", "--ckpt_path", "--seed_everything", "--predictions.file"):
        assert option in printed


def test_every_shipped_configuration_parses(root: Path, cmarr: Command, capsys: pytest.CaptureFixture[str]):
    """The files of one concern added to those of the others, and those of reported numbers by themselves."""
    configs = root / "experiments" / "configs"
    whole = [configs / "trainer" / "default.yaml", configs / "model" / "cmarr.yaml", configs / "data" / "iemocap.yaml"]
    concerns = sorted(path for path in configs.rglob("*.yaml") if path.parent.name != "sweeps")
    assert set(whole) <= set(concerns)
    complete = sorted((root / "experiments" / "reproduce").glob("*.yaml"))
    assert complete
    for files in [[*whole, path] for path in concerns] + [[path] for path in complete]:
        with pytest.raises(SystemExit) as stop:
            cmarr("fit", *(word for file in files for word in ("-c", file)), "--print_config")
        assert stop.value.code == 0, files
    capsys.readouterr()
