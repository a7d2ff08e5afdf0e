"""IEMOCAP: classes, filters and folds."""

from __future__ import annotations

from typing import Any, Literal

from cmarr_lightning.data.corpora.spellings import IEMOCAP_CODES, IEMOCAP_FOUR, OTHER_EMOTIONS
from cmarr_lightning.data.corpora.totals import IEMOCAP_TOTALS, check_totals
from cmarr_lightning.data.datamodule import FeatureDataModule

__all__ = ["IEMOCAPDataModule"]

_CLASSES = {
    "four": ["angry", "happy", "neutral", "sad"],
    "raw": ["anger", "excited", "frustration", "happiness", "neutral", "sadness"],
}


class IEMOCAPDataModule(FeatureDataModule):
    """IEMOCAP: 5 sessions of two speakers, 5,531 four-class utterances.

    Args:
        store: Folder of the feature store.
        scheme: `four`: angry, happy (with excited), neutral, sad from the column label. `raw`: the six
            frequent categories of the column emotion: anger, excited, frustration, happiness, neutral,
            sadness. The codes of the corpus (ang, exc, hap, ...) are read as well. All other utterances are
            unlabelled; spellings that are no emotion of the corpus are warned of.
        scenario: Keep `improvised` or `scripted` dialogues only.
        gender: Keep the utterances of `F` or `M` only; asks for the protocol `session`.
        protocol: Leave one `session` (5 folds) or one `speaker` (10 folds) out.
        **kwargs: As in `FeatureDataModule`.

    References:
        C. Busso et al., "IEMOCAP: Interactive emotional dyadic motion capture database", 2008,
        https://doi.org/10.1007/s10579-008-9076-6
    """

    _other_labels = OTHER_EMOTIONS

    def __init__(
        self,
        store: str,
        scheme: Literal["four", "raw"] = "four",
        scenario: Literal["improvised", "scripted"] | None = None,
        gender: Literal["F", "M"] | None = None,
        protocol: Literal["session", "speaker"] = "session",
        **kwargs: Any,
    ) -> None:
        filters = {"scenario": scenario, "gender": gender}
        super().__init__(
            store,
            classes=_CLASSES[scheme],
            label_column="label" if scheme == "four" else "emotion",
            merge=IEMOCAP_FOUR if scheme == "four" else IEMOCAP_CODES,
            where={column: value for column, value in filters.items() if value is not None},
            protocol=protocol,
            **kwargs,
        )
        if scheme == "four":
            check_totals(self.store, self._label_text, IEMOCAP_TOTALS)
