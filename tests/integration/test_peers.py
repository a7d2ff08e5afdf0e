"""MMIN, IF-MMIN, NMER and the fusion baselines through the command line: stages, resuming, refusals, learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from cmarr_lightning import FeatureDataModule
from cmarr_lightning.data.corpora.synthetic import synthesize
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.tasks import IFMMINTask, MMINTask, NMERTask
from cmarr_lightning.tasks.two_stage import TwoStageTask

Command = Callable[..., int]
WriteStore = Callable[..., FeatureStore]
TASKS = ["MMINTask", "IFMMINTask", "NMERTask", "FusionTask"]


@pytest.fixture
def fit(cmarr: Command, tiny_store: Path) -> Command:
    """Train a task; two epochs of each stage unless said otherwise."""

    def run(task: str, *words: object, store: Path = tiny_store, epochs: int = 4) -> int:
        options = ["--model", task, "--data", "FeatureDataModule", "--data.store", store, "--data.batch_size", 32]
        options += ["--trainer.max_epochs", epochs, "--trainer.accelerator", "cpu", "--data.draw", "incomplete"]
        options += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        if task != "FusionTask":
            options += ["--model.stage1_epochs", epochs // 2]
        return cmarr("fit", *options, *words)

    return run


class PowerCutError(RuntimeError):
    """What ends a training in the middle."""


@pytest.fixture
def cut_before_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the next training die before an epoch."""
    start = TwoStageTask.on_train_epoch_start

    def cut(epoch: int) -> None:
        def die_or_start(task: TwoStageTask) -> None:
            if task.current_epoch == epoch:
                monkeypatch.setattr(TwoStageTask, "on_train_epoch_start", start)
                raise PowerCutError
            start(task)

        monkeypatch.setattr(TwoStageTask, "on_train_epoch_start", die_or_start)

    return cut


def logged(run: Path) -> pd.DataFrame:
    files = sorted((run / "logs").glob("*/metrics.csv"))
    return pd.concat([pd.read_csv(path) for path in files]).groupby("epoch").first()


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return weights


@pytest.mark.parametrize("recipe", ["published", "shared"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    fit: Command, cmarr: Command, cut_before_epoch: Callable[[int], None], tmp_path: Path, recipe: str
):
    """Cut inside stage 1, between the stages and inside stage 2; only stage 2 can be selected."""
    options = ["--model.recipe", recipe, "--model.embed_dim", 16, "--model.learning_rate", "1e-3"]
    assert fit("IFMMINTask", "--run", "whole", *options) == 0
    for epoch in (1, 2, 3):
        cut_before_epoch(epoch)
        begin_or_go_on = (
            partial(fit, "IFMMINTask", *options) if epoch == 1 else partial(cmarr, "fit", "--ckpt_path", "last")
        )
        with pytest.raises(PowerCutError):
            begin_or_go_on("--run", "cut")
    assert cmarr("fit", "--run", "cut", "--ckpt_path", "last") == 0
    whole, cut = (state(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "cut"))
    torch.testing.assert_close(cut, whole, rtol=0, atol=0)
    pd.testing.assert_frame_equal(
        logged(tmp_path / "cut").drop(columns="step"), logged(tmp_path / "whole").drop(columns="step"), check_like=True
    )
    for run in ("whole", "cut"):
        (best,) = (tmp_path / run / "checkpoints").glob("best-*.ckpt")
        kept = torch.load(best, weights_only=True)
        assert kept["epoch"] in (2, 3)
        scores = logged(tmp_path / run)["val/uar_missing_mean"]
        assert scores[:2].isna().all()
        assert kept["epoch"] == scores.idxmax()


def test_the_stages_are_told_apart_in_the_log(fit: Command, tmp_path: Path):
    assert fit("NMERTask", "--run", "run", "--model.embed_dim", 16) == 0
    table = logged(tmp_path / "run")
    assert table["val/stage1_uar"].notna().tolist() == [True, True, False, False]
    assert table["val/uar/audio+video+text"].notna().tolist() == [False, False, True, True]
    assert table["train/loss_cmd"].notna().tolist() == [True, True, False, False]
    assert table["train/loss_kl"].notna().tolist() == [False, False, True, True]
    teacher = {
        name: value for name, value in state(tmp_path / "run/checkpoints/last.ckpt").items() if "teacher" in name
    }
    best = state(next((tmp_path / "run/checkpoints").glob("best-*.ckpt")))
    assert teacher
    assert all(torch.equal(best[name], value) for name, value in teacher.items())


def test_a_checkpoint_of_stage_1_scores_nothing(
    fit: Command,
    cmarr: Command,
    cut_before_epoch: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
):
    cut_before_epoch(1)
    with pytest.raises(PowerCutError):
        fit("MMINTask", "--run", "run", "--model.embed_dim", 16)
    for stage in ("test", "validate", "predict"):
        assert cmarr(stage, "--run", "run") == 2
        assert "checkpoint of stage 1" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["MMINTask", "FusionTask"])
def test_checkpoints_of_other_rows_are_refused_by_name(
    fit: Command, cmarr: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    other = synthesize(tmp_path / "other", "tiny", seed=1).path
    assert fit(task, "--run", "run", "--model.embed_dim", 16) == 0
    attempts = [
        (["fit", "--ckpt_path", "last", "--data.init_args.fold", 1], "trained on fold = 0"),
        (["fit", "--ckpt_path", "last", "--data.init_args.store", other], "trained on data_checksum ="),
        (["test", "--data.init_args.fold", 1], "trained on fold = 0"),
        (["fit", "--ckpt_path", "last", "--data.init_args.modalities", "[text,audio]"], "modalities ="),
        (["test", "--data.init_args.classes", "[sad,neutral,happy,angry]"], "class_names ="),
        (["test", "--model.init_args.embed_dim", 8], "another network"),
    ]
    if task == "MMINTask":
        attempts.append((["fit", "--ckpt_path", "last", "--model.init_args.stage1_epochs", 1], "the run began with 2"))
    for (stage, *words), message in attempts:
        capsys.readouterr()
        assert cmarr(stage, "--run", "run", *words) == 2, words
        assert message in capsys.readouterr().err, words
    assert cmarr("test", "--run", "run", "--data.init_args.store", other) == 0  # another corpus may be scored


@pytest.mark.parametrize("task", ["NMERTask", "FusionTask"])
def test_six_views_some_of_them_missing_on_disk(fit: Command, write_store: WriteStore, tmp_path: Path, task: str):
    observed = np.random.default_rng(0).random((80, 6)) > 0.05
    store = write_store(tmp_path / "six", observed).path
    recipe = () if task == "FusionTask" else ("--model.recipe", "shared", "--model.train_conditions", "drawn")
    brief = ("--model.embed_dim", 16, "--trainer.limit_val_batches", 1, "--data.eval_batch_size", 16)
    assert fit(task, "--run", "run", *brief, *recipe, store=store, epochs=2) == 0
    scores = logged(tmp_path / "run").filter(like="val/uar/").iloc[-1]
    assert len(scores) == 63 + 1
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("task", TASKS)
def test_two_modalities_as_vectors(fit: Command, cmarr: Command, write_store: WriteStore, tmp_path: Path, task: str):
    store = write_store(tmp_path / "two", np.ones((80, 2), dtype=bool), vectors=True).path
    assert fit(task, "--run", "run", "--model.embed_dim", 16, store=store, epochs=2) == 0
    assert cmarr("predict", "--run", "run", "--predictions.conditions", "all") == 0
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert sorted(set(table["condition"])) == ["m0", "m0+m1", "m1"]


@pytest.mark.parametrize(
    ("task", "options"),
    [(MMINTask, {}), (IFMMINTask, {"weight_invariant": 1.0}), (NMERTask, {})],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_peer_learns(tiny_store: Path, task: type[TwoStageTask], options: dict[str, float]):
    """Above chance, 0.25: the teacher on complete data, the student where something is missing."""
    pl.seed_everything(0)
    data = FeatureDataModule(str(tiny_store), batch_size=16)
    made = task(
        modalities=data.modalities,
        feature_dims=data.feature_dims,
        class_names=data.class_names,
        feature_kinds=data.feature_kinds,
        stage1_epochs=4,
        recipe="shared",
        train_conditions="drawn",
        embed_dim=64,
        learning_rate=6e-3,
        **options,
    )
    trainer = pl.Trainer(
        max_epochs=16,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(made, datamodule=data)
    (scores,) = trainer.test(made, datamodule=data, verbose=False)
    assert made._best_uar > 0.4
    assert scores["test/uar_missing_mean"] > 0.4  # 0.48 to 0.61 over three or four seeds


def test_modality_dropout_learns(fit: Command, cmarr: Command, tmp_path: Path):
    words = ["--model.train_conditions", "drawn", "--ema.decay", 0.9]
    assert fit("FusionTask", "--run", "run", *words, epochs=10) == 0
    assert cmarr("test", "--run", "run") == 0
    uar = pd.read_csv(tmp_path / "run" / "test" / "scores.csv").set_index("condition")["uar"]
    assert uar["mean of incomplete"] > 0.45
