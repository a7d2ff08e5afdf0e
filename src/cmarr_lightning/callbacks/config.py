"""The run's configuration, kept in its folder."""

from __future__ import annotations

from pathlib import Path

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["RunConfigCallback"]


class RunConfigCallback(SaveConfigCallback):
    """Save the configuration as `config.yaml` in the run's folder when training starts.

    Lightning's own callback writes to the logger's folder in every stage and stops where a file exists. Here only
    `fit` writes, once everything that can be wrong with the input has been found, and a resumed run keeps the
    configuration it was started with. `modalities` and `classes` that were left to the data are filled in, so
    that the run scores other data alike, labelled or not. The configuration also lands in the logger's record of
    the run (W&B: config).
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file on the first process.

        Raises:
            InputError: Another run has taken the folder meanwhile.
        """
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "config.yaml"
        text = self._text(pl_module)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(text))
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        elif not trainer.ckpt_path:
            raise InputError(f"{path.parent} holds a run already", remedy="choose another --run")

    def _text(self, task: LightningModule) -> str:
        config = self.config.clone()
        if isinstance(task, EmotionTask):
            for name, value in (("modalities", task.modalities), ("classes", task.class_names)):
                key = f"data.init_args.{name}"
                if key in config and config[key] is None:
                    config[key] = value
        text: str = self.parser.dump(config, skip_none=False, skip_link_targets=True)
        return text
