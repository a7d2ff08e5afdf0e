"""`cmarr crossval`: its arguments and its exit codes; the runs themselves are replaced."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmarr_lightning.commands import crossval, run_command
from cmarr_lightning.crossval.plan import Protocol


@pytest.fixture
def resolved(tiny_store: Path) -> dict[str, Any]:
    return {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": "auto"},
        "model": {"class_path": "cmarr_lightning.CMARRTask"},
        "data": {"class_path": "cmarr_lightning.FeatureDataModule", "init_args": {"store": str(tiny_store)}},
    }


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, resolved: dict[str, Any]) -> list[dict[str, Any]]:
    """Record what would be run and summarised; the words go to `resolve_configs` unread."""
    calls: list[dict[str, Any]] = []

    def finish(protocols: list[Protocol], **options: Any) -> list[Path]:
        calls.extend({"method": p.identity["method"], "runs": p.runs, "folder": p.folder, **options} for p in protocols)
        return []

    def resolve(words: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
        calls.extend({"words": each} for each in words.values())
        return dict.fromkeys(words, resolved)

    monkeypatch.setattr("cmarr_lightning.crossval.plan.resolve_configs", resolve)
    monkeypatch.setattr("cmarr_lightning.crossval.runs.finish_runs", finish)
    monkeypatch.setattr(
        "cmarr_lightning.analysis.summary.conclude", lambda folder, command, _: calls.append({"command": command})
    )
    monkeypatch.setattr(
        "cmarr_lightning.analysis.summary.conclude_variants",
        lambda folders, command, _: calls.append({"folders": folders, "command": command}),
    )
    monkeypatch.setattr(
        "cmarr_lightning.analysis.summary.conclude_validation", lambda folders, _: calls.append({"validated": folders})
    )
    return calls


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    crossval.add_arguments(parser)
    return parser.parse_args(words)


def test_defaults(runs: list[dict[str, Any]], tmp_path: Path):
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv")]) == 0
    words, call, summary = runs
    assert words == {"words": ["-c", "mine.yaml"]}
    assert call["runs"] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert (call["method"], call["keep_predictions"], call["last_stage"]) == ("CM-ARR", True, "test")
    assert summary == {"command": f"cmarr crossval -c mine.yaml --out {tmp_path / 'cv'} --seeds 0 --folds all"}


def test_every_option(runs: list[dict[str, Any]], tmp_path: Path):
    words = ["-c", "a.yaml", "-c", "b.yaml", "--out", str(tmp_path / "cv"), "--seeds", "2,5", "--folds", "3,0"]
    words += ["--method", "no alignment", "--jobs", "3", "--no-keep-predictions"]
    overrides = ["--trainer.max_epochs", "3", "--model.init_args.weight_align=0"]
    assert run_command(["crossval", *words, "--", *overrides]) == 0
    resolved, call, summary = runs
    assert resolved["words"] == ["-c", "a.yaml", "-c", "b.yaml", *overrides]
    assert call["runs"] == [(3, 2), (0, 2), (3, 5), (0, 5)]
    assert (call["jobs"], call["keep_predictions"], call["method"]) == (3, False, "no alignment")
    assert summary["command"].endswith(
        "--seeds 2,5 --folds 3,0 --method 'no alignment' -- --trainer.max_epochs 3 --model.init_args.weight_align=0"
    )


def test_the_test_fold_can_be_left_alone(runs: list[dict[str, Any]], tmp_path: Path):
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), "--no-test"]) == 0
    _, call, summary = runs
    assert call["last_stage"] == "validate"
    assert summary == {"validated": [tmp_path / "cv"]}


def test_a_failed_run_shows_in_the_exit_code(
    runs: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        "cmarr_lightning.crossval.runs.finish_runs", lambda *_, **__: [tmp_path / "cv" / "fold-1_seed-0"]
    )
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv")]) == 1
    assert "Failed: fold-1_seed-0" in capsys.readouterr().out
    assert "command" in runs[-1]


def test_without_any_result_there_is_no_summary(
    runs: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "cmarr_lightning.crossval.runs.finish_runs", lambda *_, **__: [tmp_path / "cv" / "fold-1_seed-0"]
    )
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), "--folds", "1"]) == 1
    assert not any("command" in call for call in runs)


def test_an_interrupt_says_how_to_go_on(
    runs: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: Any, **__: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("cmarr_lightning.crossval.runs.finish_runs", interrupted)
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv")]) == 130
    assert "The same command goes on from here" in capsys.readouterr().out


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    path = tmp_path / "variants.yaml"
    path.write_text("full: {}\nno_alignment: {model: {init_args: {weight_align: 0}}}\n")
    return path


def test_every_variant_is_a_method_in_a_folder_of_its_own(runs: list[dict[str, Any]], variants: Path, tmp_path: Path):
    words = ["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), "--variants", str(variants)]
    assert run_command([*words, "--folds", "1", "--", "--trainer.max_epochs", "3"]) == 0
    *resolved, one, two, summary = runs
    override = json.dumps({"model": {"init_args": {"weight_align": 0}}})
    common, last = ["-c", "mine.yaml"], ["--trainer.max_epochs", "3"]
    assert [call["words"] for call in resolved] == [[*common, *last], [*common, "-c", override, *last]]
    for call, name in ((one, "full"), (two, "no_alignment")):
        assert (call["method"], call["folder"], call["runs"]) == (name, tmp_path / "cv" / name, [(1, 0)])
        assert json.loads((tmp_path / "cv" / name / "crossval.json").read_text())["method"] == name
    assert summary["folders"] == [tmp_path / "cv" / "full", tmp_path / "cv" / "no_alignment"]
    assert f"--variants {variants} --out" in summary["command"]


def test_options_after_the_dashes_hold_for_all_variants(
    config: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Also over what a variant sets itself, its own class or not; the protocols keep what is run."""
    monkeypatch.setattr("cmarr_lightning.crossval.runs.finish_runs", lambda *_, **__: [])
    monkeypatch.setattr("cmarr_lightning.analysis.summary.conclude_variants", lambda *_: None)
    path = tmp_path / "variants.yaml"
    peer = "{class_path: IFMMINTask, init_args: {stage1_epochs: 3, learning_rate: 0.002}}"
    path.write_text(
        f"full: {{}}\npeer: {{trainer: {{max_epochs: 60}}, model: {peer}, data: {{init_args: {{batch_size: 64}}}}}}\n"
    )
    out = tmp_path / "cv"
    words = ["crossval", "-c", str(config), "--variants", str(path), "--out", str(out), "--folds", "0", "--"]
    words += ["--data.store", str(tiny_store), "--data.init_args.batch_size", "16", "--model.learning_rate=0.5"]
    words += ["--trainer.max_epochs", "1"]
    assert run_command(words) == 0
    kept = {name: json.loads((out / name / "crossval.json").read_text())["config"] for name in ("full", "peer")}
    for one in kept.values():
        assert one["trainer"]["max_epochs"] == 1
        assert one["data"]["init_args"]["batch_size"] == 16
        assert one["model"]["init_args"]["learning_rate"] == 0.5
    assert kept["peer"]["model"]["class_path"].endswith("IFMMINTask")
    assert kept["peer"]["model"]["init_args"]["stage1_epochs"] == 3

    assert run_command(words) == 0  # the same again goes on
    assert run_command([*words[:-1], "2"]) == 2
    assert "trainer.max_epochs was 1, is 2" in capsys.readouterr().err
    assert run_command([*words, "--model.init_args.weight_align", "0"]) == 2
    assert "peer: the configuration cannot be used" in capsys.readouterr().err


def test_a_variant_without_any_result_is_not_summarised(
    runs: list[dict[str, Any]],
    variants: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    failed = tmp_path / "cv" / "full" / "fold-1_seed-0"
    monkeypatch.setattr("cmarr_lightning.crossval.runs.finish_runs", lambda *_, **__: [failed])
    words = ["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), "--variants", str(variants)]
    assert run_command([*words, "--folds", "1"]) == 1
    assert "Failed: full/fold-1_seed-0" in capsys.readouterr().out
    assert runs[-1]["folders"] == [tmp_path / "cv" / "no_alignment"]


def test_runs_with_and_without_variants_are_kept_apart(
    runs: list[dict[str, Any]], variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words, more = ["crossval", "-c", "mine.yaml", "--out"], ["--variants", str(variants)]
    assert run_command([*words, str(tmp_path / "cv")]) == 0
    assert run_command([*words, str(tmp_path / "cv"), *more]) == 2
    assert "holds runs without variants" in capsys.readouterr().err
    assert run_command([*words, str(tmp_path / "other"), *more]) == 0
    assert run_command([*words, str(tmp_path / "other")]) == 2
    assert "holds something else than a protocol" in capsys.readouterr().err


def test_a_variant_has_one_name(
    runs: list[dict[str, Any]], variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), "--variants", str(variants)]
    assert run_command([*words, "--method", "mine"]) == 2
    assert "each variant is a method of its own name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "a"], "--seeds 'a'"),
        (["--folds", "9"], "no fold 9"),
        (["--jobs", "0"], "--jobs 0"),
        (["--slurm", "slurm_partition=gpu"], "--slurm without --executor slurm"),
        (["--executor", "slurm", "--slurm", "gpu"], "--slurm gpu. Remedy: write KEY=VALUE"),
        (["--executor", "slurm"], "start it where `sbatch` works"),
    ],
)
def test_bad_arguments_make_no_folder(
    runs: list[dict[str, Any]],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
):
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cv").exists()


def test_a_configuration_without_model_is_refused(
    runs: list[dict[str, Any]], resolved: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    resolved["model"] = None
    assert run_command(["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv")]) == 2
    assert "names no model" in capsys.readouterr().err


def test_another_configuration_in_the_folder_is_refused(
    runs: list[dict[str, Any]],
    resolved: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    words = ["crossval", "-c", "mine.yaml", "--out", str(tmp_path / "cv")]
    assert run_command(words) == 0
    assert run_command([*words, "--seeds", "1", "--jobs", "2"]) == 0  # more of the same is welcome
    resolved["trainer"]["max_epochs"] = 9
    assert run_command(words) == 2
    assert "trainer.max_epochs was 1, is 9" in capsys.readouterr().err
    kept = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert kept["config"]["trainer"]["max_epochs"] == 1


def test_help_says_how_to_give_further_options(capsys: pytest.CaptureFixture[str], cmarr: Callable[..., int]):
    with pytest.raises(SystemExit):
        cmarr("crossval", "--help")
    printed = capsys.readouterr().out
    assert "-- --trainer.max_epochs 30" in printed
    assert parse("-c", "a", "--out", "b").overrides == []
