"""Fusion baselines: the encoders of CM-ARR, imputed inputs and a perceptron; nothing is imagined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from cmarr_lightning.modalities import per_modality
from cmarr_lightning.nn.encoders import FeatureEncoder
from cmarr_lightning.nn.scaling import FeatureScaler

__all__ = ["FusionNetwork", "Imputation"]

Imputation: TypeAlias = Literal["zero", "mean"]


class FusionNetwork(nn.Module):
    r"""Classify from the embeddings of all modalities, the missing ones imputed.

    .. math::
        h_m = \mathrm{mean}_t\, \mathrm{Enc}_m(x_m)_t, \qquad
        \text{logits} = W_2\, \mathrm{GELU}(W_1 [h_1; \dots; h_M])

    The input of a missing modality is one frame of zeros or of the training means.

    Args:
        feature_dims: D per modality name; the order of the names is the order of the M axis.
        num_classes: C.
        imputation: `zero` imputes zeros in the unit of the features, `mean` the means of the training rows. Both are
            the same for features that are standardised on disk.
        embed_dim: E.
        encoder_hidden_dim: Width of the encoders' hidden layer; None leaves it out.
        encoder_dropout: In the encoders.
        input_dropout: Of the scaled features; one for all modalities, or by name.
        head_hidden_dim: Width of the classifier's hidden layer.
        head_dropout: Of the classifier's hidden layer.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        imputation: Imputation = "zero",
        embed_dim: int = 128,
        encoder_hidden_dim: int | None = None,
        encoder_dropout: float = 0.1,
        input_dropout: float | Mapping[str, float] = 0.0,
        head_hidden_dim: int = 128,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.imputation: Imputation = imputation
        self.scaler = nn.ModuleDict({m: FeatureScaler(dim) for m, dim in feature_dims.items()})
        dropped = per_modality("input_dropout", input_dropout, self.modalities)
        self.encoder = nn.ModuleDict(
            {
                m: FeatureEncoder(dim, embed_dim, encoder_hidden_dim, encoder_dropout, dropped[m])
                for m, dim in feature_dims.items()
            }
        )
        self.classifier = nn.Sequential(
            nn.Linear(len(feature_dims) * embed_dim, head_hidden_dim),
            nn.GELU(),
            nn.Dropout(head_dropout),
            nn.Linear(head_hidden_dim, num_classes),
        )

    def forward(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Return logits (B, K, C).

        Args:
            features: Per modality (B, T, D), unscaled.
            padding_mask: Per modality (B, T) bool, True = padding.
            present: (B, K, M) bool.
        """
        columns = []
        for i, m in enumerate(self.modalities):
            kept = (~padding_mask[m]).to(features[m].dtype)
            tokens = self.encoder[m](self.scaler[m](features[m]))
            own = torch.einsum("bt,bte->be", (kept / kept.sum(dim=1, keepdim=True)).to(tokens.dtype), tokens)
            imputed = self.encoder[m](self._imputed_frame(m, features[m])).squeeze(1)
            columns.append(torch.where(present[:, :, i, None], own.unsqueeze(1), imputed.unsqueeze(1)))
        logits: Tensor = self.classifier(torch.cat(columns, dim=-1))
        return logits

    def _imputed_frame(self, modality: str, features: Tensor) -> Tensor:
        """Get the scaled frames (B, 1, D) that stand for a missing modality."""
        zeros = torch.zeros_like(features[:, :1])
        if self.imputation == "mean":  # which is 0 once standardised
            return zeros
        scaled: Tensor = self.scaler[modality](zeros)
        return scaled
