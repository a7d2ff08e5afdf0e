"""Typed results passed between the network, the losses and the tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

from torch import Tensor

__all__ = ["CMARROutput", "LossTerms"]


@dataclass
class CMARROutput:
    """What `CMARRNetwork` computed for B utterances under K conditions; every field begins with B.

    Attributes:
        mean: (B, M, E) of the aligned Gaussians.
        log_std: (B, M, E), natural logarithm.
        embeddings: (B, M, E), u: a sample in training, the mean otherwise.
        log_prob: (B, M), log p_m(u) in nats, with no gradient into u.
        points: (B, K, M, E), r: u where the modality is present, its reconstruction elsewhere.
        present: (B, K, M) bool, True = present in the condition and observed for the utterance.
        projections: (B, M, P), unit length: the refinement head on the points of one condition per utterance.
        logits: (B, K, C).
    """

    mean: Tensor
    log_std: Tensor
    embeddings: Tensor
    log_prob: Tensor
    points: Tensor
    present: Tensor
    projections: Tensor
    logits: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> CMARROutput:
        """Apply a function to every tensor, for example a gather over processes."""
        return CMARROutput(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


class LossTerms(NamedTuple):
    """The terms of one training step, scalars; `total` is what is minimised.

    Attributes:
        total: Weighted sum.
        cls: Cross-entropy over the conditions, nats.
        align: 2-Wasserstein InfoNCE, nats.
        recon: Squared error of the reconstructions per dimension.
        nll: Negative log-likelihood of the flows, nats per dimension.
        refine: Supervised contrastive loss, nats.
    """

    total: Tensor
    cls: Tensor
    align: Tensor
    recon: Tensor
    nll: Tensor
    refine: Tensor
