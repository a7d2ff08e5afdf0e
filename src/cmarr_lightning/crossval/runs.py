"""Bring every run of a protocol to its end: finished ones stay, half-trained ones go on, the others start."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cmarr_lightning.analysis.evaluation import ABOUT, PREDICTIONS
from cmarr_lightning.analysis.protocol import write_results
from cmarr_lightning.analysis.runs import is_finished, read_json, read_scores, run_name
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.crossval.cluster import run_jobs_on
from cmarr_lightning.crossval.plan import Protocol, run_about
from cmarr_lightning.crossval.pool import Job, available_cores, last_lines, run_jobs
from cmarr_lightning.files import replacing

if TYPE_CHECKING:
    import submitit

__all__ = ["choose_jobs", "finish_runs"]

_CONFIG = "config.yaml"
_LOG = "log.txt"
_STAGES = ("fit", "validate", "test")
_COLUMNS = (
    TextColumn("{task.fields[runs]}"),
    BarColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
)


def choose_jobs(config: Mapping[str, Any], runs: int) -> int:
    """Decide how many runs train at a time where the user does not say.

    On a CPU one per core: small networks gain more from that than from threads. Otherwise, and where one run takes
    several devices, one.
    """
    import torch

    accelerator, devices = config["trainer"]["accelerator"], config["trainer"]["devices"]
    if accelerator == "auto" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        accelerator = "cpu"
    return max(1, min(available_cores(), runs)) if accelerator == "cpu" and devices in ("auto", "1", 1) else 1


def finish_runs(
    protocols: Sequence[Protocol],
    *,
    jobs: int,
    keep_predictions: bool,
    console: Console,
    executor: submitit.AutoExecutor | None = None,
    last_stage: str = "test",
) -> list[Path]:
    """Run what is not finished, and write `results.csv` anew as each run ends.

    Args:
        protocols: One or several, whose identities `keep_protocol` has kept; one after the other.
        jobs: How many at a time.
        keep_predictions: Keep `test/predictions.parquet`.
        console: Takes the messages and the progress display.
        executor: Of a cluster; by default the runs are processes of this machine.
        last_stage: `validate` leaves the test fold alone.

    Returns:
        The folders of the runs that failed.
    """
    todo: dict[Job, tuple[Protocol, int, int]] = {}
    for protocol in protocols:
        _write_config(protocol.folder / _CONFIG, protocol.config)
        write_results(protocol.folder, last_stage)
        for fold, seed in protocol.runs:
            if not is_finished(protocol.folder / run_name(fold, seed), last_stage):
                name = run_name(fold, seed) if len(protocols) == 1 else f"{protocol.folder.name}/{run_name(fold, seed)}"
                todo[_job(protocol.folder, name, fold, seed)] = (protocol, fold, seed)
    with Progress(*_COLUMNS, console=console) as progress:
        watcher = _Watcher(
            {job: protocol for job, (protocol, _, _) in todo.items()},
            keep_predictions,
            sum(len(protocol.runs) for protocol in protocols),
            progress,
            last_stage,
        )

        def starting(job: Job) -> None:
            protocol, fold, seed = todo[job]
            stages = _STAGES[: _STAGES.index(last_stage) + 1]
            _prepare(job, run_about(protocol.identity, protocol.config, fold, seed) | {"stages": stages}, console)

        run = partial(run_jobs, at_once=jobs) if executor is None else partial(run_jobs_on, executor)
        run(
            jobs=list(todo),
            starting=starting,
            ended=watcher.ended,
            waiting=watcher.waiting,
        )
    return watcher.failed


def _job(folder: Path, name: str, fold: int, seed: int) -> Job:
    run = folder / run_name(fold, seed)
    words = (str(run), str(folder / _CONFIG), str(fold), str(seed))
    return Job(name, (sys.executable, "-m", "cmarr_lightning.crossval.run", *words), run / _LOG)


class _Watcher:
    """Reports on the runs: one bar over all of them, in which a running one counts by its epochs."""

    def __init__(
        self,
        protocols: Mapping[Job, Protocol],
        keep_predictions: bool,
        runs: int,
        progress: Progress,
        last_stage: str,
    ) -> None:
        self.protocols = protocols
        self.keep_predictions = keep_predictions
        self.runs = runs
        self.last_stage = last_stage
        self.finished = runs - len(protocols)
        self.failed: list[Path] = []
        self.progress = progress
        self.bar = progress.add_task("", total=runs, runs="")
        self.waiting([])

    def ended(self, job: Job, code: int) -> None:
        """Take over the results of a run, or say why there are none."""
        run, console = job.log.parent, self.progress.console
        if code or not is_finished(run, self.last_stage):
            self.failed.append(run)
            console.print(f"[red]{job.name} failed[/red] (exit code {code}); the end of {job.log}:", soft_wrap=True)
            console.print(last_lines(job.log), markup=False, highlight=False, soft_wrap=True)
            return
        self.finished += 1
        if not self.keep_predictions:
            (run / "test" / PREDICTIONS).unlink(missing_ok=True)
        if self.last_stage == "test":  # nothing is left to go on with, and the best checkpoint is as large
            (run / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
        write_results(run.parent, self.last_stage)
        console.print(f"{job.name}: {_headline(run, self.last_stage)}", highlight=False)

    def waiting(self, running: Sequence[Job]) -> None:
        """Move the bar."""
        part = sum(
            _fraction(job.log.parent, self.protocols[job].config["trainer"]["max_epochs"] or -1) for job in running
        )
        done = self.finished + len(self.failed) + part
        self.progress.update(self.bar, completed=done, runs=f"{self.finished} of {self.runs} runs")


def _prepare(job: Job, about: dict[str, Any], console: Console) -> None:
    """Make the folder of an unfinished run ready for it."""
    run = job.log.parent
    old = read_json(run / ABOUT) if (run / ABOUT).is_file() else None
    needed = "best-*.ckpt" if old is not None and "fit" in old.get("finished", ()) else "last.ckpt"
    if old is not None and any((run / "checkpoints").glob(needed)):
        console.print(f"{job.name}: going on from its checkpoint", highlight=False)
        about["finished"] = old["finished"]
        if old["commit"] != about["commit"]:
            about["commit"] = f"{old['commit']}, resumed at {about['commit']}"
    elif run.exists():
        console.print(f"{run}: half written, without a checkpoint; cleared", highlight=False, soft_wrap=True)
        shutil.rmtree(run)
    with replacing(run / ABOUT) as path:
        path.write_text(json.dumps(about, indent=2), encoding="utf-8")


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    config = dict(config) | {"trainer": dict(config["trainer"])}
    if config["trainer"]["enable_progress_bar"] is None:
        config["trainer"]["enable_progress_bar"] = False  # each run writes to a log
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _headline(run: Path, stage: str) -> str:
    scores = read_scores(run, stage).set_index("condition")
    name = MISSING_MEAN if MISSING_MEAN in scores.index else scores.index[-1]
    rows = "" if stage == "test" else "validation, "
    return f"{rows}{name}: WAR {100 * scores['war'][name]:.1f} %, UAR {100 * scores['uar'][name]:.1f} %"


def _fraction(run: Path, max_epochs: int) -> float:
    """Tell how much of the training is done, in [0, 1], from the CSV log; 0 where there is none."""
    logs = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    try:
        head, *lines = logs[-1].read_text(encoding="utf-8").splitlines()
        epoch = int(lines[-1].split(",")[head.split(",").index("epoch")])
    except (IndexError, ValueError, OSError):
        return 0.0
    return min(1.0, (epoch + 1) / max_epochs) if max_epochs > 0 else 0.0
