"""Fusion of observed and reconstructed embeddings into class logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FusionClassifier"]


class FusionClassifier(nn.Module):
    r"""Classify from all points together plus a vote of each modality that is really there.

    .. math::
        \text{logits}_A = W_2\, \mathrm{GELU}(W_1 [r_1 + e_1; \dots; r_M + e_M]) + \sum_{m \in A} V_m u_m

    The first term sees true and reconstructed points; e_m is one of two learned embeddings that tell it which of them
    r_m is. The second is a product of experts: probabilities of
    the present modalities multiply, and a reconstruction, which adds no evidence of its own, has no vote.

    Args:
        num_modalities: M.
        embed_dim: E.
        num_classes: C.
        hidden_dim: Width of the hidden layer.
        dropout: Of the hidden layer and of the experts' inputs; one draw per utterance for all conditions.

    Note:
        The paper says "cross-modal fusion" and no more. A transformer layer over the M points of every condition
        would cost more than the rest of the network after pooling.
    """

    def __init__(
        self,
        num_modalities: int,
        embed_dim: int,
        num_classes: int,
        hidden_dim: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.state = nn.Parameter(0.02 * torch.randn(2, num_modalities, embed_dim))
        self.hidden = nn.Sequential(nn.Linear(num_modalities * embed_dim, hidden_dim), nn.GELU())
        self.output = nn.Linear(hidden_dim, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.experts = nn.ModuleList(nn.Linear(embed_dim, num_classes) for _ in range(num_modalities))

    def forward(self, points: Tensor, embeddings: Tensor, present: Tensor) -> Tensor:
        """Return logits (B, K, C).

        Args:
            points: r, (B, K, M, E).
            embeddings: u, (B, M, E). A modality's vote does not depend on the condition.
            present: (B, K, M) bool, True where r is u.
        """
        marked = points + torch.where(present.unsqueeze(-1), self.state[1], self.state[0])
        hidden = self.hidden(marked.flatten(2))
        kept = self.dropout(torch.ones_like(hidden[:, :1]))  # one mask for all conditions of an utterance
        dropped = self.dropout(embeddings)
        votes = torch.stack([expert(dropped[:, m]) for m, expert in enumerate(self.experts)], dim=1)
        logits: Tensor = self.output(hidden * kept)
        return logits + votes.unsqueeze(1).masked_fill(~present.unsqueeze(-1), 0.0).sum(dim=2)
