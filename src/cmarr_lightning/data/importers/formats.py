"""The formats that can be imported, by name."""

from __future__ import annotations

from collections.abc import Mapping

from cmarr_lightning.data.importers.arrays import ARRAYS
from cmarr_lightning.data.importers.conversation import CONVERSATION
from cmarr_lightning.data.importers.gcnet import GCNET
from cmarr_lightning.data.importers.mmin import MMIN
from cmarr_lightning.data.importers.mmsa import MMSA
from cmarr_lightning.data.importers.source import Format

__all__ = ["FORMATS"]

FORMATS: Mapping[str, Format] = {
    "arrays": ARRAYS,
    "mmin": MMIN,
    "gcnet": GCNET,
    "conversation": CONVERSATION,
    "mmsa": MMSA,
}
"""Format, as named on the command line -> how to recognise and read it."""
