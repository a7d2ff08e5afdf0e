"""Small stacks of linear layers that the peers share, and how they are initialised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["InvariantEncoder", "MLPClassifier", "initialise_kaiming"]


class MLPClassifier(nn.Sequential):
    r"""Map features to logits: per width Linear, ReLU, [BatchNorm], Dropout; then Linear to C.

    Args:
        in_dim: Width of the input.
        num_classes: C.
        widths: Of the hidden layers.
        dropout: After every hidden layer.
        batch_norm: Normalise after the ReLU of every hidden layer.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        widths: Sequence[int] = (128, 128),
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(in_dim, width), nn.ReLU()]
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            layers += [nn.Dropout(dropout)]
            in_dim = width
        super().__init__(*layers, nn.Linear(in_dim, num_classes))


class InvariantEncoder(nn.Sequential):
    """The encoder S of what the modalities have in common: two linear layers E to E with LeakyReLU(0.01) after each.

    One instance serves all modalities.

    Args:
        embed_dim: E.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__(
            nn.Linear(embed_dim, embed_dim), nn.LeakyReLU(), nn.Linear(embed_dim, embed_dim), nn.LeakyReLU()
        )


@torch.no_grad()
def initialise_kaiming(module: nn.Module) -> None:
    """Draw weights of linear and convolution layers from Kaiming's normal distribution (fan-in), biases 0.

    Other parameters (LSTM, the attention's inputs, normalisation) keep the framework's start.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
