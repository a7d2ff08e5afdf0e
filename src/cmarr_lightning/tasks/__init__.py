"""LightningModules: steps, objectives and schedules, one per method."""

from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.cmarr import CMARRTask

__all__ = ["CMARRTask", "EmotionTask"]
