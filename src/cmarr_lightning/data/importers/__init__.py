"""Importers: from the feature formats that are around to a feature store."""

from __future__ import annotations

from cmarr_lightning.data.importers.formats import FORMATS
from cmarr_lightning.data.importers.pipeline import Imported, import_arrays, import_features
from cmarr_lightning.data.importers.raw_labels import LABEL_READERS, recognise_labels, write_labels

__all__ = [
    "FORMATS",
    "LABEL_READERS",
    "Imported",
    "import_arrays",
    "import_features",
    "recognise_labels",
    "write_labels",
]
