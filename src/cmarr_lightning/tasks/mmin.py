"""MMIN as a LightningModule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.losses.imagination import teacher_error
from cmarr_lightning.models.mmin import MMINNetwork, MMINOutput
from cmarr_lightning.tasks.two_stage import Terms, TwoStageTask

__all__ = ["MMINTask"]


class MMINTask(TwoStageTask):
    r"""The missing modality imagination network (Zhao, Li and Jin, 2021), both stages.

    .. math::
        L_1 = L_{cls}, \qquad
        L_2 = L_{cls} + w_{imagine} \lVert \hat x - t \rVert^2 + w_{cycle} \lVert \tilde x - \mathrm{sg}(x) \rVert^2

    t is what the teacher makes of the complement: the embedding of a missing modality as it really is, and that of
    zeros for one that is present. Errors are means per dimension.

    Args:
        weight_imagine: 4 for IEMOCAP, 2 for MSP-IMPROV in the released program.
        weight_cycle: 2 for IEMOCAP, 0.5 for MSP-IMPROV.
        options: See `TwoStageTask`.

    Note:
        Departures from the released program: padded frames are left out (`padding`); a modality that an utterance
        lacks on disk has no target; both stages have batches of one size.
    """

    title = "MMIN"
    network: MMINNetwork

    def __init__(self, weight_imagine: float = 4.0, weight_cycle: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.weight_imagine = weight_imagine
        self.weight_cycle = weight_cycle
        self.network = MMINNetwork(self.feature_dims, len(self.class_names), **self.encoder_options)

    def student_terms(
        self, features: dict[str, Tensor], clean: dict[str, Tensor], batch: MultimodalBatch, present: Tensor
    ) -> Terms:
        """Return the loss of stage 2."""
        output: MMINOutput = self.network.student(features, batch.padding_mask, present)
        with torch.no_grad():
            complement = batch.observed.unsqueeze(1) & ~present
            target = self.network.teacher.encoders(clean, batch.padding_mask, complement)
        known = self.known(batch, present)
        every = present.any(dim=-1, keepdim=True).expand_as(present)
        return {
            "cls": (1.0, self.cross_entropy(output.logits, batch, present)),
            "imagine": (self.weight_imagine, teacher_error(output.imagined, target, known)),
            "cycle": (self.weight_cycle, teacher_error(output.cycled, output.embeddings, every)),
        }
