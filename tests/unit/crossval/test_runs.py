"""Which runs start, go on or stay, and what is told about them; training itself is replaced by a script."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from cmarr_lightning.crossval import runs
from cmarr_lightning.crossval.plan import Protocol
from cmarr_lightning.crossval.pool import Job
from cmarr_lightning.crossval.runs import choose_jobs, finish_runs

IDENTITY = {
    **{"method": "CMARR", "data": "made up", "data_checksum": "abc", "synthetic": True, "protocol": "session"},
    **{"modalities": ["audio", "text"], "class_names": ["calm", "glad"], "config": {}},
}
CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 4, "enable_progress_bar": None, "accelerator": "cpu", "devices": "auto"},
    "data": {"init_args": {"fold": 0}},
}
RUNS = [(0, 0), (1, 0)]
CHILD = """
import json, sys
from pathlib import Path
run = Path(sys.argv[1])
with (run.parent / "trained").open("a") as file:
    print(run.name, json.loads((run / "about.json").read_text())["finished"], file=file)
if (run.parent / f"fail-{run.name}").exists():
    raise SystemExit("the reason")
about = json.loads((run / "about.json").read_text())
names = ("audio", "text", "audio+text", "mean of incomplete")
lines = ["condition,war,uar,f1,n", *(f"{name},0.5,0.25,0.4,8" for name in names)]
cells = [f"{name},{i},{j},2" for name in names[:3] for i in ("calm", "glad") for j in ("calm", "glad")]
for stage in about["stages"][1:]:
    (run / stage).mkdir(exist_ok=True)
    (run / stage / "scores.csv").write_text("\\n".join(lines))
    (run / stage / "confusion.csv").write_text("\\n".join(["condition,true,predicted,count", *cells]))
if "test" in about["stages"]:
    (run / "test" / "predictions.parquet").write_text("")
(run / "checkpoints").mkdir(exist_ok=True)
for name in ("last.ckpt", "best-epoch=1.ckpt"):
    (run / "checkpoints" / name).touch()
(run / "about.json").write_text(json.dumps(about | {"finished": about["stages"]}))
"""


@pytest.fixture
def finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], str]]:
    """Get a function that runs the protocol in `out` and gives the failed runs and what was printed."""

    def job(folder: Path, name: str, fold: int, seed: int) -> Job:
        run = folder / runs.run_name(fold, seed)
        return Job(name, (sys.executable, "-c", CHILD, str(run)), run / "log.txt")

    def run(
        chosen: list[tuple[int, int]] = RUNS,
        keep_predictions: bool = True,
        folders: tuple[str, ...] = ("out",),
        last_stage: str = "test",
    ) -> tuple[list[str], str]:
        console = Console(file=io.StringIO(), width=200)
        protocols = [Protocol(tmp_path / name, IDENTITY, CONFIG, chosen) for name in folders]
        failed = finish_runs(
            protocols, jobs=1, keep_predictions=keep_predictions, console=console, last_stage=last_stage
        )
        return [path.relative_to(tmp_path).as_posix() for path in failed], console.file.getvalue()

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(runs, "_job", job)
    return run


def trained(out: Path) -> list[str]:
    return (out / "trained").read_text().splitlines()


def test_every_run_is_recorded_and_tabulated(finish, tmp_path: Path):
    failed, printed = finish()
    assert failed == []
    assert "fold-0_seed-0: mean of incomplete: WAR 50.0 %, UAR 25.0 %" in printed
    assert "2 of 2 runs" in printed
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table.groupby(["fold", "seed", "stage"]).size().tolist() == [12, 12] * 2
    about = json.loads((tmp_path / "out" / "fold-1_seed-0" / "about.json").read_text())
    assert (about["run"], about["data_checksum"]) == ("fold-1_seed-0", "abc")


def test_nothing_finished_is_repeated(finish, tmp_path: Path):
    finish([(0, 0)])
    kept = (tmp_path / "out" / "fold-0_seed-0" / "about.json").stat().st_mtime_ns
    _, printed = finish()
    assert trained(tmp_path / "out") == ["fold-0_seed-0 []", "fold-1_seed-0 []"]
    assert (tmp_path / "out" / "fold-0_seed-0" / "about.json").stat().st_mtime_ns == kept
    assert "cleared" not in printed
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")["run"].unique()) == 2


def test_the_test_fold_is_left_alone_until_it_is_asked_for(finish, tmp_path: Path):
    _, printed = finish(last_stage="validate")
    assert "fold-0_seed-0: validation, mean of incomplete: WAR 50.0 %" in printed
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["stage"]) == {"validate"}
    assert not list((tmp_path / "out").glob("*/test"))
    _, printed = finish(last_stage="validate")
    assert len(trained(tmp_path / "out")) == 2
    assert len(list((tmp_path / "out").glob("*/checkpoints/last.ckpt"))) == 2
    _, printed = finish()
    assert not list((tmp_path / "out").glob("*/checkpoints/last.ckpt"))
    assert trained(tmp_path / "out")[2] == "fold-0_seed-0 ['fit', 'validate']"
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["stage"]) == {"validate", "test"}


def test_a_failure_is_told_with_its_cause_and_tried_again(finish, tmp_path: Path):
    (tmp_path / "out" / "fail-fold-0_seed-0").touch()
    failed, printed = finish()
    assert failed == ["out/fold-0_seed-0"]
    assert "fold-0_seed-0 failed (exit code 1); the end of" in printed
    assert "the reason" in printed
    assert "1 of 2 runs" in printed
    assert pd.read_csv(tmp_path / "out" / "results.csv")["run"].unique().tolist() == ["fold-1_seed-0"]
    (tmp_path / "out" / "fail-fold-0_seed-0").unlink()
    failed, _ = finish()
    assert failed == []
    assert trained(tmp_path / "out") == ["fold-0_seed-0 []", "fold-1_seed-0 []", "fold-0_seed-0 []"]


def half_trained(out: Path, finished: list[str], checkpoint: str | None) -> Path:
    run = out / "fold-0_seed-0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "about.json").write_text(json.dumps({"finished": finished, "commit": "old"}))
    (run / "config.yaml").write_text("mine")
    if checkpoint is not None:
        (run / "checkpoints" / checkpoint).touch()
    return run


@pytest.mark.parametrize(("stages", "checkpoint"), [([], "last.ckpt"), (["fit"], "best-epoch=1.ckpt")])
def test_a_half_trained_run_goes_on_from_its_checkpoint(
    finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: list[str], checkpoint: str
):
    monkeypatch.setattr("cmarr_lightning.crossval.plan.git_commit", lambda: "new")
    run = half_trained(tmp_path / "out", stages, checkpoint)
    _, printed = finish()
    assert "fold-0_seed-0: going on from its checkpoint" in printed
    assert (run / "config.yaml").read_text() == "mine"
    assert trained(tmp_path / "out")[0] == f"fold-0_seed-0 {stages}"
    assert json.loads((run / "about.json").read_text())["commit"] == "old, resumed at new"


@pytest.mark.parametrize(("stages", "checkpoint"), [([], None), ([], "best-epoch=1.ckpt"), (["fit"], None)])
def test_a_run_without_checkpoint_is_cleared_and_nothing_else(
    finish, tmp_path: Path, stages: list[str], checkpoint: str | None
):
    run = half_trained(tmp_path / "out", stages, checkpoint)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "fold-7_seed-0").mkdir()
    _, printed = finish()
    assert f"{run}: half written, without a checkpoint; cleared" in printed
    assert not (run / "config.yaml").exists()
    assert trained(tmp_path / "out")[0] == "fold-0_seed-0 []"
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "out" / "fold-7_seed-0").exists()


def test_the_runs_of_several_protocols_are_told_apart(finish, tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "fail-fold-0_seed-0").touch()
    failed, printed = finish(folders=("a", "b"))
    assert failed == ["b/fold-0_seed-0"]
    assert "a/fold-0_seed-0: mean of incomplete: WAR" in printed
    assert "b/fold-0_seed-0 failed (exit code 1)" in printed
    assert "3 of 4 runs" in printed
    assert len(trained(tmp_path / "a")) == len(trained(tmp_path / "b")) == 2
    for name, expected in (("a", ["fold-0_seed-0", "fold-1_seed-0"]), ("b", ["fold-1_seed-0"])):
        assert pd.read_csv(tmp_path / name / "results.csv")["run"].unique().tolist() == expected


def test_predictions_are_kept_unless_the_user_says_otherwise(finish, tmp_path: Path):
    finish([(0, 0)])
    finish([(1, 0)], keep_predictions=False)
    kept = [path.parts[-3] for path in (tmp_path / "out").rglob("predictions.parquet")]
    assert kept == ["fold-0_seed-0"]


def test_the_configuration_of_the_runs_draws_no_bars_in_the_logs(finish, tmp_path: Path):
    finish()
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["trainer"]["enable_progress_bar"] is False
    assert CONFIG["trainer"]["enable_progress_bar"] is None


def test_training_shows_in_epochs(tmp_path: Path):
    log = tmp_path / "logs" / "version_0" / "metrics.csv"
    assert runs._fraction(tmp_path, 4) == 0
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step\n")
    assert runs._fraction(tmp_path, 4) == 0
    log.write_text("step,epoch,loss\n5,0,1.0\n9,1,\n")
    assert runs._fraction(tmp_path, 4) == 0.5
    assert runs._fraction(tmp_path, -1) == 0


@pytest.mark.parametrize(
    ("accelerator", "devices", "cuda", "expected"),
    [
        ("cpu", "auto", True, 4),
        ("cpu", 1, False, 4),
        ("cpu", 2, False, 1),
        ("auto", "auto", False, 4),
        ("auto", "auto", True, 1),
        ("gpu", 1, True, 1),
    ],
)
def test_a_cpu_trains_one_run_per_core(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, devices: object, cuda: bool, expected: int
):
    monkeypatch.setattr("cmarr_lightning.crossval.runs.available_cores", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    config = {"trainer": {"accelerator": accelerator, "devices": devices}}
    assert choose_jobs(config, 15) == expected
    assert choose_jobs(config, 2) == min(2, expected)
