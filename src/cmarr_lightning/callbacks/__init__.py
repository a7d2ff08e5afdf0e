"""Lightning callbacks: what a run leaves in its folder."""

from cmarr_lightning.callbacks.averaging import AveragedWeights
from cmarr_lightning.callbacks.best import BestCheckpoint
from cmarr_lightning.callbacks.config import RunConfigCallback
from cmarr_lightning.callbacks.gradients import GradientNorms
from cmarr_lightning.callbacks.last import LastCheckpoint
from cmarr_lightning.callbacks.predictions import PredictionWriter
from cmarr_lightning.callbacks.results import ResultsWriter
from cmarr_lightning.callbacks.wandb_dashboard import WandbDashboard

__all__ = [
    "AveragedWeights",
    "BestCheckpoint",
    "GradientNorms",
    "LastCheckpoint",
    "PredictionWriter",
    "ResultsWriter",
    "RunConfigCallback",
    "WandbDashboard",
]
