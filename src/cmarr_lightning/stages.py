"""`fit`, `validate`, `test` and `predict`: LightningCLI, one folder per run."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

import cmarr_lightning.data.corpora.iemocap
import cmarr_lightning.data.corpora.msp_improv
import cmarr_lightning.tasks  # noqa: F401  (class names without their module resolve once imported)
from cmarr_lightning.callbacks import (
    AveragedWeights,
    BestCheckpoint,
    LastCheckpoint,
    PredictionWriter,
    ResultsWriter,
    RunConfigCallback,
    WandbDashboard,
)
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError
from cmarr_lightning.run_folder import check_checkpoint
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["CMARRCLI"]

_LINKED = ("modalities", "feature_dims", "class_names", "feature_kinds")
_WITHOUT_WANDB = (
    "log in once with `wandb login` (or set WANDB_API_KEY), or keep the record in the run's folder: "
    "-c experiments/configs/logger/wandb_offline.yaml, or WANDB_MODE=offline"
)


def _take_what_is_there(data: Namespace, trained: list[str]) -> None:
    """Let data for prediction read those of the trained modalities that the store has. Noise is for training.

    A modality that is neither trained nor in the store stays, and is refused by the data module.
    """
    if "modalities" not in data:
        return  # data of a class of somebody's own
    has = FeatureStore.open(data.store).modalities
    data.modalities = [m for m in data.modalities or trained if m in has or m not in trained]
    if not data.modalities:
        raise InputError(
            f"{data.store}: none of the modalities that the run was trained on, {', '.join(trained)}",
            remedy=f"give features of one of them; the store has {', '.join(has)}",
        )
    data.noise = None


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
        remedy = "`cmarr fit --help` lists the options"
        if ex is not None and isinstance(_causes(ex)[-1], ModuleNotFoundError):
            remedy = "name the folder of the module in PYTHONPATH"
        raise InputError(place.replace("Parser key ", ""), remedy=remedy)


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
        self.trained: dict[str, Any] = {}  # what data the checkpoint to predict with was made for
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
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
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
        for name in _LINKED:  # a task need not take the last
            trained = partial(self._as_trained, name)
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", trained, apply_on="instantiate")

    def _as_trained(self, name: str, of_data: Any) -> Any:
        """Hand on what the data say; in prediction, what was trained: the data may lack labels and modalities."""
        return self.trained.get(name, of_data)

    def before_instantiate_classes(self) -> None:
        """Put checkpoints and logs into the run's folder; let no checkpoint execute code."""
        config = self.config[self.subcommand]
        self.given = config.clone()
        config.weights_only = True
        if config.ckpt_path is not None:
            trained = check_checkpoint(config.ckpt_path, to_train=self.subcommand == "fit")
            if self.subcommand == "predict":
                self.trained = {name: trained[name] for name in _LINKED if name in trained}
                _take_what_is_there(config.data.init_args, self.trained.get("modalities", []))
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
