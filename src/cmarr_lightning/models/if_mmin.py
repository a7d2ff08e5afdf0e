"""IF-MMIN: MMIN without the way back, led by what the modalities have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from cmarr_lightning.models.two_stage import CompleteOutput, EncoderOptions, Student, Teacher, TwoStageNetwork
from cmarr_lightning.nn.imagination import Cascade, InvariantWiring
from cmarr_lightning.nn.perceptrons import InvariantEncoder, MLPClassifier
from cmarr_lightning.nn.utterance_encoders import UtteranceEncoders

__all__ = ["IFMMINNetwork", "IFMMINOutput", "IFMMINStudent", "InvariantTeacher"]


class IFMMINOutput(NamedTuple):
    """What `IFMMINStudent` computes for B utterances under K conditions.

    Attributes:
        logits: (B, K, C).
        imagined: (B, K, M, E), what the teacher knows of the missing modalities.
        invariant: (B, K, M, E), S(h).
    """

    logits: Tensor
    imagined: Tensor
    invariant: Tensor


class InvariantTeacher(Teacher):
    r"""Classify from specific and invariant features: :math:`\mathrm{FC}([h_1; \dots; h_M; S h_1; \dots; S h_M])`.

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        options: Of the encoders.
    """

    inherited = ("encoders", "invariant")

    def __init__(self, feature_dims: Mapping[str, int], num_classes: int, **options: Unpack[EncoderOptions]) -> None:
        super().__init__()
        self.encoders = UtteranceEncoders(feature_dims, **options)
        self.invariant = InvariantEncoder(options["embed_dim"])
        self.classifier = MLPClassifier(2 * len(feature_dims) * options["embed_dim"], num_classes, dropout=0.3)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], observed: Tensor
    ) -> CompleteOutput:
        """Classify from everything that is observed (B, M) bool."""
        embeddings = self.encoders(features, padding_mask, observed.unsqueeze(1)).squeeze(1)
        invariant = self.invariant(embeddings)
        logits = self.classifier(torch.cat([embeddings.flatten(1), invariant.flatten(1)], dim=-1))
        return CompleteOutput(logits, invariant)


class IFMMINStudent(Student):
    r"""Imagine the missing embeddings with the invariant features as input of every block.

    .. math::
        x = [h_{1A}; \dots; h_{MA}], \quad s = [S h_{1A}; \dots; S h_{MA}], \quad
        (\hat x, c) = \mathrm{Cascade}(x, s), \quad \text{logits} = \mathrm{FC}(c)

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        wiring: How s enters the blocks, see `Cascade`.
        options: Of the encoders.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        wiring: InvariantWiring,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        self.wiring: InvariantWiring = wiring
        self.encoders = UtteranceEncoders(feature_dims, **options)
        self.invariant = InvariantEncoder(options["embed_dim"])
        self.cascade = Cascade(len(feature_dims) * options["embed_dim"])
        self.classifier = MLPClassifier(self.cascade.code_dim, num_classes)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor
    ) -> IFMMINOutput:
        """Classify under present (B, K, M) bool; features are scaled."""
        embeddings = self.encoders(features, padding_mask, present)
        invariant = self.invariant(embeddings)
        imagined, codes = self.cascade.with_invariant(embeddings.flatten(2), invariant.flatten(2), self.wiring)
        return IFMMINOutput(self.classifier(codes), imagined.view_as(embeddings), invariant)


class IFMMINNetwork(TwoStageNetwork):
    """MMIN with modality-invariant features (Zuo et al., 2023).

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        wiring: `paper2022` is the code the published numbers were made with, `head2024` the repository's later state;
            see `Cascade`.
        options: Of the encoders.

    References:
        Zuo et al., "Exploiting Modality-Invariant Feature for Robust Multimodal Emotion Recognition with Missing
        Modalities", ICASSP 2023, https://arxiv.org/abs/2210.15359
    """

    teacher: InvariantTeacher
    student: IFMMINStudent

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        wiring: InvariantWiring = "paper2022",
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(
            feature_dims,
            InvariantTeacher(feature_dims, num_classes, **options),
            IFMMINStudent(feature_dims, num_classes, wiring, **options),
        )
