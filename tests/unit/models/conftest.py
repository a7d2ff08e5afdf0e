"""Small CM-ARR networks and made-up batches for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cmarr_lightning.modalities import condition_table
from cmarr_lightning.models.cmarr import CMARRNetwork

NAMES = ("audio", "video", "text", "eeg", "gsr", "nonverbal")
LENGTHS = (7, 1, 4, 1, 9, 2)  # sequences and utterance vectors


@dataclass
class Batch:
    """B utterances under all conditions."""

    features: dict[str, Tensor]
    padding_mask: dict[str, Tensor]
    observed: Tensor
    labels: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def present(self) -> Tensor:
        """All conditions, (B, 2^M - 1, M)."""
        return condition_table(self.names) & self.observed.unsqueeze(1)

    @property
    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        return self.features, self.padding_mask, self.present


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fresh_network() -> Callable[..., CMARRNetwork]:
    """Build a network of E = 16 and C = 4 for the first M names; D = 3, 4, 5, ..."""

    def build(num_modalities: int = 3) -> CMARRNetwork:
        dims = {m: 3 + i for i, m in enumerate(NAMES[:num_modalities])}
        return CMARRNetwork(dims, num_classes=4, embed_dim=16, num_heads=2)

    return build


@pytest.fixture
def make_network(fresh_network: Callable[..., CMARRNetwork]) -> Callable[..., CMARRNetwork]:
    """Build a network away from its start, where the flows are all one rotation; in evaluation mode."""

    def build(num_modalities: int = 3) -> CMARRNetwork:
        network = fresh_network(num_modalities)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter += (0.03 if name.startswith("flow") else 0.1) * torch.randn_like(parameter)
        return network.eval()

    return build


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Build a batch of sequences (two frames or more) and vectors; `lacking` some modalities on disk."""

    def build(
        num_modalities: int = 3, size: int = 5, longest: tuple[int, ...] = LENGTHS, lacking: bool = False
    ) -> Batch:
        observed = torch.ones(size, num_modalities, dtype=torch.bool)
        if lacking:
            observed[1, 0] = False
            observed[2, :-1] = False
        features, padding_mask = {}, {}
        for i, (m, length) in enumerate(zip(NAMES[:num_modalities], longest, strict=False)):
            lengths = torch.randint(min(2, length), length + 1, (size, 1))
            lengths[0] = length
            lengths[~observed[:, i]] = 1
            padding_mask[m] = torch.arange(length) >= lengths
            features[m] = torch.randn(size, length, 3 + i)
            features[m][padding_mask[m]] = 0
            features[m][~observed[:, i]] = 0
        return Batch(features, padding_mask, observed, torch.arange(size) % 2)

    return build
