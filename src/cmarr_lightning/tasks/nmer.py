"""NMER as a LightningModule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.losses.imagination import KLScale, gaussian_kl, teacher_error
from cmarr_lightning.losses.moment_discrepancy import pairwise_discrepancy
from cmarr_lightning.models.nmer import NMERNetwork, NMEROutput
from cmarr_lightning.models.two_stage import CompleteOutput
from cmarr_lightning.tasks.two_stage import Terms, TwoStageTask

__all__ = ["NMERTask"]


class NMERTask(TwoStageTask):
    r"""Noise-robust multimodal emotion recognition, both stages.

    .. math::
        L_1 = L_{cls} + L_{cmd}, \qquad
        L_2 = L_{cls} + \lVert \hat x - t \rVert^2 + L_{KL} + w_{invariant} \lVert q - s^* \rVert^2

    t are the teacher's specific embeddings of the complete utterance and s* its invariant ones. Errors are means per
    dimension.

    Args:
        batch_attention: Whether the utterances of a batch attend to each other, as in the released program. Off by
            default: a prediction would depend on its batch mates, in test too.
        kl: `mean`, or `released`: summed over batch and latent dimensions, which outweighs all other terms.
        weight_invariant: Of the error of the invariant features.
        options: See `TwoStageTask`.

    Note:
        Embeddings of utterance vectors are not bounded as for the other peers: here CMD trains encoders of its own, and
        the student scored 6 points less with bounded ones (validation UAR of IEMOCAP, 40 epochs of stage 2).
        Besides those options: the latent is sampled in training only, so that a prediction can be repeated; the U-Net
        of stage 1, which changes nothing that stage 2 uses, is left out; no batch is dropped; and a missing modality
        is embedded as zeros, as for the other peers, because the released program's noise of a random level lets most
        of a "missing" modality through. Noise belongs to the data, for all methods alike.
    """

    title = "NMER"
    network: NMERNetwork
    bounded_vectors = False

    def __init__(
        self, batch_attention: bool = False, kl: KLScale = "mean", weight_invariant: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.kl: KLScale = kl
        self.weight_invariant = weight_invariant
        self.network = NMERNetwork(self.feature_dims, len(self.class_names), batch_attention, **self.encoder_options)

    def teacher_terms(self, output: CompleteOutput, batch: MultimodalBatch) -> Terms:
        """Return the loss of stage 1."""
        discrepancy = pairwise_discrepancy(output.invariant, batch.observed)
        return super().teacher_terms(output, batch) | {"cmd": (1.0, discrepancy)}

    def student_terms(
        self, features: dict[str, Tensor], clean: dict[str, Tensor], batch: MultimodalBatch, present: Tensor
    ) -> Terms:
        """Return the loss of stage 2."""
        output: NMEROutput = self.network.student(features, batch.padding_mask, present)
        with torch.no_grad():
            teacher, complete = self.network.teacher, batch.observed.unsqueeze(1)
            target = teacher.specific(clean, batch.padding_mask, complete)
            invariant = teacher.invariant(teacher.common(clean, batch.padding_mask, complete))
        known, usable = self.known(batch, present), present.any(dim=-1)
        posterior = output.posterior
        return {
            "cls": (1.0, self.cross_entropy(output.logits, batch, present)),
            "imagine": (1.0, teacher_error(output.imagined, target, known)),
            "kl": (1.0, gaussian_kl(posterior.mean, posterior.log_variance, usable, self.kl)),
            "invariant": (self.weight_invariant, teacher_error(output.invariant, invariant, known)),
        }
