"""The training objective: classification plus the three weighted losses of CM-ARR."""

from __future__ import annotations

from torch import Tensor, nn

from cmarr_lightning.losses.alignment import AlignmentLoss
from cmarr_lightning.losses.classification import condition_cross_entropy
from cmarr_lightning.losses.reconstruction import negative_log_likelihood, reconstruction_error
from cmarr_lightning.losses.refinement import supervised_contrastive
from cmarr_lightning.outputs import CMARROutput, LossTerms

__all__ = ["CMARRLoss"]


class CMARRLoss(nn.Module):
    r"""Combine the losses of one batch.

    .. math::
        L = L_{cls} + w_{align} L_{align} + w_{recon} (w_{mse} L_{mse} + w_{nll} L_{nll}) + w_{refine} L_{refine}

    Args:
        weight_align: Of `AlignmentLoss`.
        weight_recon: Of the reconstruction error and the likelihood together.
        weight_nll: Of the likelihood within the reconstruction loss.
        weight_refine: Of `supervised_contrastive`.
        label_smoothing: Of the cross-entropy.
        refine_temperature: tau of `supervised_contrastive`.
        weight_mse: Of the reconstruction error within the reconstruction loss.

    Note:
        The paper's loss has three weights alpha, beta, lambda (Fig. 4); which belongs to which term is not
        known to us, hence the names.
    """

    def __init__(
        self,
        weight_align: float = 0.5,
        weight_recon: float = 0.1,
        weight_nll: float = 1.0,
        weight_refine: float = 0.1,
        label_smoothing: float = 0.1,
        refine_temperature: float = 0.1,
        weight_mse: float = 1.0,
    ) -> None:
        super().__init__()
        self.align = AlignmentLoss()
        self.weight_align = weight_align
        self.weight_recon = weight_recon
        self.weight_nll = weight_nll
        self.weight_mse = weight_mse
        self.weight_refine = weight_refine
        self.label_smoothing = label_smoothing
        self.refine_temperature = refine_temperature

    def forward(
        self,
        output: CMARROutput,
        observed: Tensor,
        labels: Tensor,
        class_weight: Tensor | None = None,
        ramp: float = 1.0,
    ) -> LossTerms:
        """Compute the terms.

        Args:
            output: Of the whole (global) batch of B utterances.
            observed: (B, M) bool, True = on disk.
            labels: (B,) int64, -1 = none: such rows train everything but cls and refine.
            class_weight: (C,), factor on the cross-entropy of each class.
            ramp: Factor in [0, 1] on reconstruction and refinement, so that alignment comes first.
        """
        usable = output.present.any(dim=-1)  # (B, K)
        recovered = observed.unsqueeze(1) & ~output.present & usable.unsqueeze(-1)
        points, point_labels = output.projections.flatten(0, 1), labels.repeat_interleave(observed.shape[1])
        cls = condition_cross_entropy(output.logits, labels, usable, class_weight, self.label_smoothing)
        align = self.align(output.mean, output.log_std.exp(), observed)
        recon = reconstruction_error(output.points, output.embeddings, recovered)
        nll = negative_log_likelihood(output.log_prob, output.mean.shape[-1], observed)
        refine = supervised_contrastive(points, point_labels, self.refine_temperature)
        total = (
            cls
            + self.weight_align * align
            + ramp * self.weight_recon * self.reconstruction(recon, nll)
            + ramp * self.weight_refine * refine
        )
        return LossTerms(total, cls, align, recon, nll, refine)

    def reconstruction(self, recon: Tensor, nll: Tensor) -> Tensor:
        """Combine the error and the likelihood of the reconstruction."""
        return self.weight_mse * recon + self.weight_nll * nll
