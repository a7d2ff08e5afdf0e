"""`fit`, `validate`, `test` and `predict`: LightningCLI, one folder per run."""

from __future__ import annotations

import os
import secrets
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

import cmarr_lightning.data.corpora.iemocap
import cmarr_lightning.data.corpora.msp_improv
import cmarr_lightning.tasks  # noqa: F401  (class names without their module resolve once imported)
from cmarr_lightning.callbacks import (
    AveragedWeights,
    LastCheckpoint,
    PredictionWriter,
    ResultsWriter,
    RunConfigCallback,
    WandbDashboard,
)
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.errors import InputError
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["CMARRCLI", "resolve_run"]

_RUNS = Path("runs")
_WITHOUT_WANDB = (
    "log in once with `wandb login` (or set WANDB_API_KEY), or keep the record in the run's folder: "
    "-c experiments/configs/logger/wandb_offline.yaml, or WANDB_MODE=offline"
)


def resolve_run(argv: list[str]) -> tuple[list[str], Path]:
    """Find the folder of the run and complete the arguments from what it holds.

    * `fit` makes a new folder `runs/<time>-<random>`, or takes `--run FOLDER`, which must not hold a run yet.
      With `--ckpt_path last` it goes on with the run in `--run`, or with the latest one under `runs`.
    * The other stages take the run from `--run`, or from the place of `--ckpt_path`; the checkpoint is its best
      one (`--ckpt_path last` takes the last).
    * Where there is a run, its own `config.yaml` comes first; what is given with `-c` or as an option overrides it.

    Returns:
        The arguments for LightningCLI and the run's folder.

    Raises:
        InputError: A run, configuration or checkpoint is not where it should be, or would be overwritten.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--ckpt_path")
    known, rest = parser.parse_known_args(argv[1:])
    stage, run, checkpoint = argv[0], known.run, known.ckpt_path
    if {"-h", "--help", "--print_config"} & {word.split("=")[0] for word in rest}:
        return [stage, *rest], run or _RUNS
    if stage == "fit":
        if checkpoint == "last":
            run = run or _latest_run()
            checkpoint = str(_checkpoint(run, "last"))
            rest = _with_config(rest, run)
        else:
            run = _new_run(run)
    else:
        if run is None:
            run = _run_of_checkpoint(checkpoint)
        if checkpoint in (None, "best", "last"):
            checkpoint = str(_checkpoint(run, checkpoint or "best"))
        rest = _with_config(rest, run)
    if checkpoint is not None:
        rest = [*rest, "--ckpt_path", checkpoint]
    return [stage, *rest], run


def _new_run(run: Path | None) -> Path:
    if run is None:
        return _RUNS / f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    if (run / "config.yaml").exists():
        raise InputError(
            f"{run} holds a run already",
            remedy="choose another --run, or go on with it by --ckpt_path last",
        )
    return run


def _latest_run() -> Path:
    runs = sorted(_RUNS.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise InputError(f"no run with a last checkpoint under {_RUNS}", remedy="name the run's folder with --run")
    return runs[-1].parents[1]


def _run_of_checkpoint(checkpoint: str | None) -> Path:
    if checkpoint in (None, "best", "last"):
        raise InputError("no run named", remedy="give --run FOLDER, or --ckpt_path FILE")
    folder = Path(str(checkpoint)).parent
    return folder.parent if folder.name == "checkpoints" else folder


def _checkpoint(run: Path, which: str) -> Path:
    folder = run / "checkpoints"
    found = sorted(folder.glob("last.ckpt" if which == "last" else "best-*.ckpt"))
    if not found:
        raise InputError(f"{folder}: no {which} checkpoint", remedy="train the run with `cmarr fit` first")
    return max(found, key=lambda path: path.stat().st_mtime)


def _with_config(rest: list[str], run: Path) -> list[str]:
    config = run / "config.yaml"
    if config.exists():
        return ["-c", str(config), *rest]
    if any(word in ("-c", "--config") or word.startswith("--config=") for word in rest):
        return rest
    raise InputError(f"{config}: not found", remedy="give the configuration with -c")


def _check_checkpoint(path: str | Path, *, to_train: bool) -> None:
    """Refuse a file that is no checkpoint before anything is built upon it. Nothing in it is executed.

    Raises:
        InputError: Missing, truncated, not from this program, holding more than plain values and tensors, or
            without the state of training although training is to go on.
    """
    remedy = "name a checkpoint that `cmarr fit` wrote, or train anew"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint", remedy=remedy)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes may come from anywhere, and so may the error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: cannot be loaded as a checkpoint ({reason[0]})", remedy=remedy) from error
    needed = ["pytorch-lightning_version", "state_dict", "hyper_parameters"]
    needed += ["optimizer_states", "lr_schedulers", "loops"] if to_train else []
    absent = [key for key in needed if not isinstance(checkpoint, dict) or key not in checkpoint]
    if absent:
        raise InputError(f"{path}: not a checkpoint of this program (no {', '.join(absent)})", remedy=remedy)


def _wandb_id(run: Path, *, offline: bool) -> str | None:
    """Find the W&B run that a run folder already has, so that all its stages are one row of the dashboard.

    Offline every stage has a record of its own, because W&B cannot resume without its server.
    """
    if offline or os.environ.get("WANDB_MODE", "online") != "online" or "WANDB_RUN_ID" in os.environ:
        return None
    records = sorted(run.glob("wandb/run-*-*"))
    return records[-1].name.rpartition("-")[2] if records else None


class _Parser(LightningArgumentParser):
    """A parser whose errors are one message, without a page of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `InputError` with the place and the innermost reason."""
        if not self.exit_on_error:
            super().error(message, ex)
        place, *details = message.splitlines()
        if details and ex is not None:
            place += f" {_causes(ex)[-1]}"
        raise InputError(place.replace("Parser key ", ""), remedy="`cmarr fit --help` lists the options")


def _causes(error: BaseException) -> list[BaseException]:
    """List an error and what it was raised from, innermost last."""
    return [error] if error.__cause__ is None else [error, *_causes(error.__cause__)]


class CMARRCLI(LightningCLI):
    """LightningCLI with our defaults; `main` runs it.

    Always on, and configurable under the key: checkpoint of the best epoch (`checkpoint`), averaged weights (`ema`),
    predictions (`predictions`). Always on: checkpoint of the last epoch, scores and confusion matrices, the saved
    configuration. Everything lands in the run's folder.

    Args:
        run: The run's folder.
        args: Words after `cmarr`.
    """

    def __init__(self, run: Path, args: list[str]) -> None:
        self.run = run
        self.stage = args[0]
        try:
            super().__init__(
                EmotionTask,
                FeatureDataModule,
                args=args,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=RunConfigCallback,
                trainer_defaults={"callbacks": [ResultsWriter(), WandbDashboard(), LastCheckpoint()]},
                parser_class=_Parser,
                parser_kwargs={"description": "CM-ARR: emotion recognition with missing modalities", "prog": "cmarr"},
            )
        except Exception as error:
            wandb = sys.modules.get("wandb")
            if wandb is None or not isinstance(error, wandb.errors.Error):
                raise
            raise InputError(f"W&B: {error}", remedy=_WITHOUT_WANDB) from error
        finally:
            # A W&B run that stays open would swallow what the next stage in this process logs.
            if (wandb := sys.modules.get("wandb")) and wandb.run is not None:
                wandb.finish()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Declare this stage only: the options of all four take a second to collect."""
        return {self.stage: LightningCLI.subcommands()[self.stage]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every run has a seed; Lightning's own option may leave it open, which the data could not follow."""
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of everything, >= 0.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that are always on and hand the data's properties to the model."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(AveragedWeights, "ema")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults(
            {
                "checkpoint.monitor": EmotionTask.monitor,
                "checkpoint.mode": EmotionTask.mode,
                "checkpoint.filename": "best-epoch={epoch}-uar={val/uar_missing_mean:.4f}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,  # a run has its own folder
                "trainer.gradient_clip_val": 1.0,
                "trainer.log_every_n_steps": 1,
            }
        )
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in ("modalities", "feature_dims", "class_names", "feature_kinds"):  # a task need not take the last
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Put checkpoints and logs into the run's folder; let no checkpoint execute code."""
        config = self.config[self.subcommand]
        self.given = config.clone()
        config.weights_only = True
        if config.ckpt_path is not None:
            _check_checkpoint(config.ckpt_path, to_train=self.subcommand == "fit")
        for key in ("verbose", "return_predictions"):  # our own table is printed, predictions go to a file
            if key in config:
                config[key] = False
        config.trainer.default_root_dir = str(self.run)
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(self.run / "checkpoints")
        logger = config.trainer.get("logger")
        for item in logger if isinstance(logger, list) else [logger]:
            if hasattr(item, "init_args") and item.init_args.get("save_dir") in (None, "."):
                item.init_args.save_dir = str(self.run)
            if hasattr(item, "init_args") and item.class_path.endswith("WandbLogger") and not item.init_args.id:
                item.init_args.id = _wandb_id(self.run, offline=item.init_args.offline)
                item.init_args.resume = "allow" if item.init_args.id else item.init_args.get("resume")

    def instantiate_classes(self) -> None:
        """Instantiate data, model and trainer; what they refuse is an error of the configuration."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            causes = _causes(error)  # jsonargparse wraps what a constructor raises
            for cause in causes:
                if isinstance(cause, InputError):
                    raise cause from None
            if isinstance(causes[-1], (ValueError, MisconfigurationException)):
                raise InputError(str(causes[-1]), remedy="change the configuration") from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Log to CSV unless a logger is configured."""
        logger = self.config[self.subcommand].trainer.get("logger")
        if logger is None or logger is True:
            kwargs["logger"] = CSVLogger(self.run, name="logs")
        self.config[self.subcommand] = self.given  # what is kept with the run names no place, so it can be reused
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say where the run is."""
        if self.trainer.is_global_zero and (self.run / "config.yaml").exists():
            print(f"Run: {self.run} (score it with `cmarr test --run {self.run}`)")

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as given; a checkpoint that does not fit it is refused by name on loading.

        Lightning would let the checkpoint's hyperparameters override the command line.
        """
