"""CM-ARR for PyTorch Lightning: emotion recognition when a modality is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmarr_lightning.data.corpora.iemocap import IEMOCAPDataModule
    from cmarr_lightning.data.corpora.msp_improv import MSPImprovDataModule
    from cmarr_lightning.data.datamodule import FeatureDataModule
    from cmarr_lightning.data.store import FeatureStore
    from cmarr_lightning.models.cmarr import CMARRNetwork
    from cmarr_lightning.tasks.cmarr import CMARRTask

__all__ = [
    "CMARRNetwork",
    "CMARRTask",
    "FeatureDataModule",
    "FeatureStore",
    "IEMOCAPDataModule",
    "MSPImprovDataModule",
]

__version__ = version("cmarr-lightning")

_HOME = {
    "CMARRNetwork": "cmarr_lightning.models.cmarr",
    "CMARRTask": "cmarr_lightning.tasks.cmarr",
    "FeatureDataModule": "cmarr_lightning.data.datamodule",
    "FeatureStore": "cmarr_lightning.data.store",
    "IEMOCAPDataModule": "cmarr_lightning.data.corpora.iemocap",
    "MSPImprovDataModule": "cmarr_lightning.data.corpora.msp_improv",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `cmarr --help` must not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cmarr_lightning' has no attribute {name!r}")
