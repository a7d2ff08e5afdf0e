"""LightningModules: steps, objectives and schedules, one per method."""

from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.cmarr import CMARRTask
from cmarr_lightning.tasks.fusion import FusionTask
from cmarr_lightning.tasks.if_mmin import IFMMINTask
from cmarr_lightning.tasks.mmin import MMINTask
from cmarr_lightning.tasks.nmer import NMERTask

__all__ = ["CMARRTask", "EmotionTask", "FusionTask", "IFMMINTask", "MMINTask", "NMERTask"]
