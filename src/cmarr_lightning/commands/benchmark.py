"""`cmarr benchmark`: measure speed and memory of training and inference on this machine."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cmarr_lightning.errors import InputError

if TYPE_CHECKING:
    from cmarr_lightning.analysis.benchmark import Measurement
    from cmarr_lightning.data.store import FeatureStore

__all__ = ["HELP", "add_arguments", "run"]

HELP = "measure speed and memory of training and inference on this machine"
_QUIET = 0.15
_EPOCHS = 3  # two of them end between steps, which is when validation and checkpoints can be timed
_WATCHES = "cmarr_lightning.callbacks.benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr benchmark`."""
    parser.add_argument(
        "--store",
        metavar="STORE",
        type=Path,
        help="store to measure on; made with the IEMOCAP preset where there is none (default: a temporary one)",
    )
    parser.add_argument("--task", default="CMARRTask", help="class of the method (default: %(default)s)")
    parser.add_argument(
        "--stage", type=int, choices=(1, 2), help="which stage of a method with two is measured (default: 2)"
    )
    parser.add_argument("--batch-size", type=_positive, default=128, help="utterances per step (default: %(default)s)")
    parser.add_argument("--steps", type=_positive, default=30, help="training steps to measure (default: %(default)s)")
    parser.add_argument(
        "--threads", metavar="N,...", type=_counts, default=[1, 2], help="threads to measure with (default: 1,2)"
    )
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="write the figures to this file too")
    parser.add_argument("overrides", nargs="*", metavar="-- OPTION ...", help="further options of `cmarr fit`")


def run(args: argparse.Namespace) -> int:
    """Measure in one fresh process per number of threads, print the table and write the file."""
    stage = _stage(args.task, args.stage)
    options = [*_stage_options(stage), *args.overrides]
    name = args.task + (f", stage {stage}" if stage else "")
    with TemporaryDirectory() as scratch:
        store = _open_store(args.store or Path(scratch) / "store")
        measured = []
        for threads in args.threads:
            print(f"measuring {name} on {store.name} with OMP_NUM_THREADS={threads} ...", flush=True)
            folder = Path(scratch) / f"run-{threads}"
            measured.append(_measure(store, args.task, args.batch_size, args.steps, threads, folder, options))
    mark = " (synthetic)" if store.synthetic else ""
    _print(measured, f"{name}, {store.name}{mark}, batches of {args.batch_size}")
    if args.out:
        _write(args.out, args.task, stage, options, store, measured)
    return 0


def _stage(task: str, asked: int | None) -> int | None:
    """Return the stage to measure; None for a method that has but one."""
    from cmarr_lightning import tasks
    from cmarr_lightning.tasks.two_stage import TwoStageTask

    kind = getattr(tasks, task.rpartition(".")[2], None)
    if isinstance(kind, type) and issubclass(kind, TwoStageTask):
        return asked or 2
    if asked:
        raise InputError(f"--stage {asked}: {task} is not trained in two stages", remedy="leave out --stage")
    return None


def _stage_options(stage: int | None) -> list[str]:
    """Return the options of `cmarr fit` by which what is measured belongs to one stage.

    The teacher of a stage 2 without a stage 1 is as slow as a trained one. A stage 1 is followed by an epoch of stage 2
    that is not measured, because only a student is tested.
    """
    if stage is None:
        return []
    options = ["--data.init_args.draw", "incomplete", "--model.init_args.stage1_epochs"]
    if stage == 2:
        return [*options, "0"]
    lengths = ["--trainer.max_steps", "-1", "--trainer.max_epochs", str(_EPOCHS + 1)]
    return [*options, str(_EPOCHS), *lengths, "--trainer.profiler.epochs", str(_EPOCHS)]


def _open_store(path: Path) -> FeatureStore:
    from cmarr_lightning.data.corpora.synthetic import synthesize
    from cmarr_lightning.data.store import FeatureStore

    if path.exists():
        return FeatureStore.open(path)
    print(f"writing the synthetic IEMOCAP corpus, 0.9 GB, to {path} ...", flush=True)
    return synthesize(path, "iemocap")


def _measure(
    store: FeatureStore,
    task: str,
    batch_size: int,
    steps: int,
    threads: int,
    folder: Path,
    overrides: Sequence[str],
) -> Measurement:
    """Run `cmarr fit` with stop watches for a few short epochs, then `cmarr test`, both with so many threads."""
    from cmarr_lightning.analysis.benchmark import Measurement

    figures = folder / "figures.json"
    per_epoch = -(-(steps + 3) // _EPOCHS) + 1  # 3 to warm up; the last of an epoch is not measured
    fit = [
        *("fit", "--run", str(folder), "--model", task, "--data", "FeatureDataModule"),
        *("--data.init_args.store", str(store.path), "--data.init_args.protocol", "speaker"),
        *("--data.init_args.batch_size", str(batch_size)),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.max_epochs", "-1", "--trainer.max_steps", str(_EPOCHS * per_epoch)),
        *("--trainer.limit_train_batches", str(per_epoch)),
        *("--trainer.profiler", f"{_WATCHES}.StepProfiler"),
        *("--trainer.callbacks+", f"{_WATCHES}.BenchmarkWriter"),
        *("--trainer.callbacks.path", str(figures), "--trainer.callbacks.started", str(time.time())),
        *overrides,
    ]
    _cmarr(fit, threads)
    test_s = _cmarr(["test", "--run", str(folder)], threads)
    return Measurement(test_s=test_s, **json.loads(figures.read_text(encoding="utf-8")))


def _cmarr(arguments: list[str], threads: int) -> float:
    """Run the command line in a process of its own.

    Returns:
        Its wall time, s.

    Raises:
        InputError: It stopped; what it said is in the message.
    """
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cmarr_lightning", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise InputError(f"`cmarr {arguments[0]}` stopped: {last[0].removeprefix('cmarr: error: ')}")
    return time.perf_counter() - start


def _print(measured: Sequence[Measurement], title: str) -> None:
    from rich.console import Console

    from cmarr_lightning.analysis.benchmark import benchmark_table

    console = Console()
    if not console.is_terminal:  # in a file or a pipe nothing need be folded
        console.width = 200
    console.print(benchmark_table(measured, title))
    for m in measured:
        if m.others_cores is not None and m.others_cores > _QUIET:
            print(
                f"warning: other processes used {m.others_cores:.2f} cores while this one had {m.threads} thread(s);"
                " CPU times of one thread suffer least, wall times most"
            )


def _write(
    out: Path,
    task: str,
    stage: int | None,
    options: Sequence[str],
    store: FeatureStore,
    measured: Sequence[Measurement],
) -> None:
    from cmarr_lightning.analysis.machine import describe_machine
    from cmarr_lightning.files import replacing

    report = {
        "task": task,
        "stage": stage,
        "options": list(options),
        "data": store.name,
        "data_checksum": store.checksum,
        "synthetic": store.synthetic,
        "machine": describe_machine(),
        "measurements": [
            {
                **asdict(m),
                "training_utterances_per_s": m.training_speed,
                "training_gflop_per_utterance": m.training_gflop,
                "inference_utterances_per_s": m.inference_speed,
                "inference_gflop_per_utterance": m.utterance_gflop,
                "load_share": m.load_share,
                "ten_folds_s": m.ten_folds_s,
            }
            for m in measured
        ],
    }
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"figures: {out}")


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_positive(word) for word in text.split(",")]
