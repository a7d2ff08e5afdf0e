"""Cascades of residual auto-encoders that imagine the embeddings of missing modalities (MMIN, IF-MMIN)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Cascade", "InvariantWiring"]

InvariantWiring: TypeAlias = Literal["paper2022", "head2024"]


class Cascade(nn.Module):
    r"""Run K auto-encoders after each other; the codes of all of them go to the classifier.

    With :math:`c_k = \mathrm{Enc}_k(u_k)`, :math:`r_k = \mathrm{Dec}_k(c_k)` and a last map T (two linear layers with
    ReLU between):

    .. math::
        \text{MMIN:} \quad & u_1 = x, \; u_k = u_{k-1} + r_{k-1}, & \hat x &= T(u_K + r_K) \\
        \text{IF-MMIN, paper2022:} \quad & u_k = x + k s, & \hat x &= T(u_K + r_K) \\
        \text{IF-MMIN, head2024:} \quad & r_0 = x, \; u_k = r_{k-1} + s, & \hat x &= T(r_K)

    Args:
        dim: D, width of x.
        widths: Of the encoder of each block; the last is that of the code. LeakyReLU between; the decoder runs
            through them backwards with ReLU between.
        num_blocks: K.

    References:
        Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing
        Modalities", ACL 2021, https://aclanthology.org/2021.acl-long.203; Zuo et al., "Exploiting Modality-Invariant
        Feature for Robust Multimodal Emotion Recognition with Missing Modalities", ICASSP 2023,
        https://arxiv.org/abs/2210.15359

    Examples:
        >>> imagined, codes = Cascade(6, widths=(4, 2), num_blocks=3)(torch.zeros(5, 6))
        >>> imagined.shape, codes.shape
        (torch.Size([5, 6]), torch.Size([5, 6]))
    """

    def __init__(self, dim: int, widths: Sequence[int] = (256, 128, 64), num_blocks: int = 5) -> None:
        super().__init__()
        down, up = [dim, *widths], [*reversed(widths), dim]
        self.encoders = nn.ModuleList(_layers(down, nn.LeakyReLU) for _ in range(num_blocks))
        self.decoders = nn.ModuleList(_layers(up, nn.ReLU) for _ in range(num_blocks))
        self.transition = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.code_dim = num_blocks * widths[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine as MMIN does.

        Args:
            x: (..., D), the embeddings of all modalities, missing ones embedded as zeros.

        Returns:
            Imagined embeddings (..., D) and the codes of all blocks, (..., code_dim).
        """
        codes = []
        u = x
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            codes.append(encoder(u))
            u = u + decoder(codes[-1])
        return self.transition(u), torch.cat(codes, dim=-1)

    def with_invariant(self, x: Tensor, invariant: Tensor, wiring: InvariantWiring) -> tuple[Tensor, Tensor]:
        """Imagine as IF-MMIN does; s = invariant (..., D), everything else as in `forward`."""
        codes = []
        if wiring == "paper2022":  # no block sees another's output, so that only the last decoder is ever used
            u = x
            for encoder in self.encoders:
                u = u + invariant
                codes.append(encoder(u))
            return self.transition(u + self.decoders[-1](codes[-1])), torch.cat(codes, dim=-1)
        r = x
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            codes.append(encoder(r + invariant))
            r = decoder(codes[-1])
        return self.transition(r), torch.cat(codes, dim=-1)


def _layers(widths: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Chain linear layers with an activation between, none after the last."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1])
