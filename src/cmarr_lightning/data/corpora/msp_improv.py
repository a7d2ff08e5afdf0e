"""MSP-IMPROV: classes, filters and folds."""

from __future__ import annotations

from typing import Any, Literal

from cmarr_lightning.data.corpora.spellings import MSP_IMPROV_FOUR, OTHER_EMOTIONS
from cmarr_lightning.data.corpora.totals import MSP_IMPROV_TOTALS, check_totals
from cmarr_lightning.data.datamodule import FeatureDataModule

__all__ = ["MSPImprovDataModule"]

_CLASSES = {"four": ["angry", "happy", "neutral", "sad"], "raw": ["A", "H", "N", "O", "S"]}


class MSPImprovDataModule(FeatureDataModule):
    """MSP-IMPROV: 6 sessions of two speakers, 7,798 four-class utterances.

    Args:
        store: Folder of the feature store.
        scheme: `four`: angry, happy, neutral, sad from the column label. `raw`: the codes A, H, N, O
            (other), S of the column emotion. All other utterances are unlabelled; spellings that are no emotion
            of the corpus are warned of.
        recording: Keep these recordings only: `S` other turns of the improvisations, `P` talk between takes,
            `T` target sentences improvised, `R` target sentences read. Published results often use S alone.
        gender: Keep the utterances of `F` or `M` only; asks for the protocol `session`.
        protocol: Leave one `session` (6 folds) or one `speaker` (12 folds) out.
        **kwargs: As in `FeatureDataModule`.

    References:
        C. Busso et al., "MSP-IMPROV: An acted corpus of dyadic interactions to study emotion perception",
        2017, https://doi.org/10.1109/TAFFC.2016.2515617
    """

    _other_labels = OTHER_EMOTIONS

    def __init__(
        self,
        store: str,
        scheme: Literal["four", "raw"] = "four",
        recording: list[Literal["S", "P", "T", "R"]] | None = None,
        gender: Literal["F", "M"] | None = None,
        protocol: Literal["session", "speaker"] = "session",
        **kwargs: Any,
    ) -> None:
        filters: dict[str, str | list[str] | None] = {
            "recording": None if recording is None else [*recording],
            "gender": gender,
        }
        super().__init__(
            store,
            classes=_CLASSES[scheme],
            label_column="label" if scheme == "four" else "emotion",
            merge=MSP_IMPROV_FOUR if scheme == "four" else None,
            where={column: value for column, value in filters.items() if value is not None},
            protocol=protocol,
            **kwargs,
        )
        if scheme == "four":
            check_totals(self.store, self._label_text, MSP_IMPROV_TOTALS)
