"""What a `WandbLogger` records, read back from W&B's offline files, and what happens without a login."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from cmarr_lightning.cli import main
from cmarr_lightning.crossval.plan import resolve_configs
from cmarr_lightning.crossval.run import _name_for_wandb

Command = Callable[..., int]


def without_network(patch: pytest.MonkeyPatch, home: Path) -> None:
    """No account, no file of W&B's outside the test's folder; W&B reads its environment once and must do so again."""
    wandb.teardown()
    patch.setenv("HOME", str(home))
    patch.setenv("WANDB_SILENT", "true")
    for name in ("API_KEY", "DIR", "MODE", "PROJECT", "RUN_ID", "RUN_GROUP", "JOB_TYPE", "NAME", "TAGS"):
        patch.setenv(f"WANDB_{name}", "")  # so that it is put back whatever a test does
        patch.delenv(f"WANDB_{name}")


@dataclass
class Stages:
    """A training of two epochs, its continuation to three, and a test, in the folder of one run of a protocol."""

    run: Path
    folders: list[Path]
    records: list[Any]


@pytest.fixture(scope="module")
def stages(
    tmp_path_factory: pytest.TempPathFactory, config: Path, tiny_store: Path, root: Path, read_wandb: Callable[..., Any]
) -> Stages:
    folder = tmp_path_factory.mktemp("wandb")
    run = folder / "cv" / "full" / "fold-0_seed-3"
    logger = root / "experiments" / "configs" / "logger" / "wandb_offline.yaml"
    words = ["-c", config, "-c", logger, "--data.store", tiny_store, "--trainer.callbacks+=GradientNorms"]
    with pytest.MonkeyPatch.context() as patch:
        without_network(patch, folder / "home")
        patch.chdir(folder)
        patch.setattr("sys.argv", ["cmarr"])
        _name_for_wandb(run, "a, b", "0", "3")
        for stage in (
            ["fit", *words, "--run", run],
            ["fit", "--run", run, "--ckpt_path", "last", "--trainer.max_epochs", "3"],
            ["test", "--run", run],
        ):
            assert main([str(word) for word in stage]) == 0
        wandb.teardown()  # `finish` returns before W&B's service has written the end of the file
    assert {path.name for path in folder.iterdir()} <= {"cv", "home"}, "everything is in the folder of the run"
    read = [(path, read_wandb(path)) for path in (run / "wandb").glob("offline-run-*")]
    folders, records = zip(*sorted(read, key=lambda item: item[1].run.start_time.ToNanoseconds()), strict=True)
    return Stages(run, list(folders), list(records))


def test_every_stage_has_a_whole_record_and_a_second_fit_does_not_fail(stages: Stages):
    assert [record.finished for record in stages.records] == [True] * 3
    epochs = [record.values("epoch") for record in stages.records[:2]]
    assert [(min(values), max(values)) for values in epochs] == [(0, 1), (2, 2)]
    assert all(record.run.project == "cmarr-lightning" for record in stages.records)


def test_folds_share_a_group_and_seeds_are_job_types(stages: Stages):
    for record in stages.records:
        run = record.run
        assert (run.run_group, run.job_type, run.display_name) == ("cv/full", "seed-3", "fold-0_seed-3")
        assert sorted(run.tags) == ["a  b", "fold-0", "seed-3"]


def test_the_whole_configuration_is_in_the_record(stages: Stages, tiny_store: Path):
    kept = yaml.safe_load((stages.run / "config.yaml").read_text())
    found = stages.records[0].config
    for key in ("seed_everything", "trainer", "model", "data", "checkpoint", "ema"):
        assert found[key] == kept[key]
    assert found["data"]["init_args"]["store"] == str(tiny_store)


def test_summaries(stages: Stages):
    metrics = stages.records[0].metrics
    for name in ("val/uar_missing_mean", "val/uar/*", "val/war/*"):
        assert metrics[name].summary.max
        assert metrics[name].step_metric == "trainer/global_step"
    assert metrics["train/loss"].summary.min
    assert not metrics["train/loss"].summary.max


def test_scores_of_every_condition_and_the_flows_are_logged(stages: Stages):
    fitted, _, tested = stages.records
    conditions = ("audio", "video", "text", "audio+video", "audio+text", "video+text", "audio+video+text")
    for condition in conditions:
        assert len(fitted.values(f"val/uar/{condition}")) == 2
        assert len(tested.values(f"test/uar/{condition}")) == 1
    assert 0 < max(fitted.values("train/flow_roundtrip_error")) < 1e-4
    assert not tested.values("train/loss")


def test_the_best_score_outlives_a_resumption(stages: Stages):
    first, second = (record.values("val/uar_missing_mean") for record in stages.records[:2])
    assert stages.records[0].values("val/uar_missing_mean_best") == [first[0], max(first)]
    assert stages.records[1].values("val/uar_missing_mean_best") == [max(first + second)]


def test_confusion_matrices_are_pictures_over_time_and_a_table_at_the_end(stages: Stages):
    fitted, _, tested = stages.records
    pictures = fitted.values("val/confusion/path")
    assert len(pictures) == 2
    for picture in pictures:
        assert (stages.folders[0] / "files" / picture).read_bytes()[:4] == b"\x89PNG"
    steps = [row["trainer/global_step"] for row in fitted.history if "val/confusion/path" in row]
    assert 0 < steps[0] < steps[1]
    assert len(fitted.values("val/confusion_table/path")) == 1
    table = tested.table(stages.folders[2], "test/confusion_table")
    expected = pd.read_csv(stages.run / "test" / "confusion.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(table["data"], columns=table["columns"]), expected)


def test_gradient_norms_are_logged_on_request(stages: Stages, trained_run: Path):
    fitted = stages.records[0]
    parts = ("encoder", "umc", "flow", "classifier", "projection", "loss")
    for part in parts:
        assert len(fitted.values(f"grad_norm/{part}")) == 2
        assert all(
            0 <= norm <= total
            for norm, total in zip(fitted.values(f"grad_norm/{part}"), fitted.values("grad_norm/total"), strict=True)
        )
    assert not any("grad_norm" in name for name in pd.read_csv(trained_run / "logs/version_0/metrics.csv").columns)


def test_offline_no_checkpoint_leaves_the_folder(stages: Stages):
    assert {path.name.split("-")[0] for path in (stages.run / "checkpoints").iterdir()} == {"best", "last.ckpt"}
    assert not list(stages.run.glob("wandb/*/files/**/*.ckpt"))


def test_without_login_the_way_out_is_told(
    cmarr: Command,
    config: Path,
    tiny_store: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    without_network(monkeypatch, tmp_path / "home")
    logger = root / "experiments" / "configs" / "logger" / "wandb.yaml"
    words = ("fit", "-c", config, "-c", logger, "--data.store", tiny_store, "--run", "run")
    assert cmarr(*words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("cmarr: error: W&B: No API key configured")
    assert "`wandb login`" in message
    assert "wandb_offline.yaml, or WANDB_MODE=offline" in message
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert cmarr(*words, "--trainer.max_epochs", 1) == 0, "the way out works, in the same folder"


def test_online_all_stages_are_one_run(
    cmarr: Command, config: Path, trained_run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        asked.append(options)
        raise wandb.errors.CommError("no network")

    without_network(monkeypatch, tmp_path / "home")
    monkeypatch.setattr("wandb.init", init)
    logger = root / "experiments" / "configs" / "logger" / "wandb.yaml"
    words = ("test", "--run", "run", "-c", logger)
    assert cmarr(*words) == 2
    for name in ("run-20260101_000000-older", "run-20260201_000000-newer", "offline-run-20260301_000000-other"):
        (trained_run / "wandb" / name).mkdir(parents=True)
    assert cmarr(*words) == 2
    assert cmarr(*words, "--trainer.logger.init_args.id", "mine") == 2
    assert cmarr(*words, "--trainer.logger.init_args.offline", "true") == 2
    assert [options["id"] for options in asked] == [None, "newer", "mine", None]
    assert asked[1]["resume"] == "allow", "the run goes on instead of being overwritten"


def test_a_sweep_drives_fit(root: Path, config: Path, tiny_store: Path, stages: Stages):
    sweep = yaml.safe_load((root / "experiments" / "configs" / "sweeps" / "wandb_loss_weights.yaml").read_text())
    assert len(stages.records[0].values(sweep["metric"]["name"])) == 2, "what is optimised is logged"
    chosen = {name: {"value": parameter["values"][1]} for name, parameter in sweep["parameters"].items()}
    arguments = create_sweep_command_args({"args": chosen})["args"]
    words = [
        word for part in create_sweep_command(sweep["command"]) for word in (arguments if part == "${args}" else [part])
    ]
    assert words[:2] == ["cmarr", "fit"]
    files = [root / word if word.endswith(".yaml") else word for word in words[2:]]
    assert all(path.is_file() for path in files if isinstance(path, Path))
    resolved = resolve_configs({"": [str(word) for word in files]})[""]
    weights = {
        f"model.init_args.{name}": resolved["model"]["init_args"][name]
        for name in ("weight_align", "weight_recon", "weight_refine")
    }
    assert weights == {name: option["value"] for name, option in chosen.items()}
    assert resolved["trainer"]["logger"]["class_path"] == "lightning.pytorch.loggers.WandbLogger"
