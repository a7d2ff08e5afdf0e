"""MMIN: a cascade of auto-encoders imagines what is missing, and a second one imagines the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Unpack

from torch import Tensor

from cmarr_lightning.models.two_stage import CompleteOutput, EncoderOptions, Student, Teacher, TwoStageNetwork
from cmarr_lightning.nn.imagination import Cascade
from cmarr_lightning.nn.perceptrons import MLPClassifier
from cmarr_lightning.nn.utterance_encoders import UtteranceEncoders

__all__ = ["FusionTeacher", "MMINNetwork", "MMINOutput", "MMINStudent"]


class MMINOutput(NamedTuple):
    """What `MMINStudent` computes for B utterances under K conditions.

    Attributes:
        logits: (B, K, C).
        embeddings: (B, K, M, E), x: missing modalities embedded as zeros.
        imagined: (B, K, M, E), what the teacher knows of the missing modalities.
        cycled: (B, K, M, E), x again, imagined back.
    """

    logits: Tensor
    embeddings: Tensor
    imagined: Tensor
    cycled: Tensor


class FusionTeacher(Teacher):
    r"""Classify from the embeddings of all modalities: :math:`\text{logits} = \mathrm{FC}([h_1; \dots; h_M])`.

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        options: Of the encoders.
    """

    inherited = ("encoders",)

    def __init__(self, feature_dims: Mapping[str, int], num_classes: int, **options: Unpack[EncoderOptions]) -> None:
        super().__init__()
        self.encoders = UtteranceEncoders(feature_dims, **options)
        self.classifier = MLPClassifier(len(feature_dims) * options["embed_dim"], num_classes, dropout=0.3)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], observed: Tensor
    ) -> CompleteOutput:
        """Classify from everything that is observed (B, M) bool."""
        embeddings = self.encoders(features, padding_mask, observed.unsqueeze(1)).squeeze(1)
        return CompleteOutput(self.classifier(embeddings.flatten(1)), embeddings[..., :0])


class MMINStudent(Student):
    r"""Imagine the missing embeddings and classify from the codes on the way.

    .. math::
        x = [h_{1A}; \dots; h_{MA}], \qquad (\hat x, c) = \mathrm{Cascade}(x), \qquad
        (\tilde x, \cdot) = \mathrm{Cascade}'(\hat x), \qquad \text{logits} = \mathrm{FC}(c)

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        options: Of the encoders.
    """

    def __init__(self, feature_dims: Mapping[str, int], num_classes: int, **options: Unpack[EncoderOptions]) -> None:
        super().__init__()
        dim = len(feature_dims) * options["embed_dim"]
        self.encoders = UtteranceEncoders(feature_dims, **options)
        self.forward_cascade = Cascade(dim)
        self.backward_cascade = Cascade(dim)
        self.classifier = MLPClassifier(self.forward_cascade.code_dim, num_classes)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor
    ) -> MMINOutput:
        """Classify under present (B, K, M) bool; features are scaled."""
        embeddings = self.encoders(features, padding_mask, present)
        x = embeddings.flatten(2)
        imagined, codes = self.forward_cascade(x)
        cycled, _ = self.backward_cascade(imagined)
        return MMINOutput(self.classifier(codes), embeddings, imagined.view_as(embeddings), cycled.view_as(embeddings))


class MMINNetwork(TwoStageNetwork):
    """The missing modality imagination network (Zhao, Li and Jin, 2021).

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        options: Of the encoders.

    References:
        Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing
        Modalities", ACL 2021, https://aclanthology.org/2021.acl-long.203
    """

    teacher: FusionTeacher
    student: MMINStudent

    def __init__(self, feature_dims: Mapping[str, int], num_classes: int, **options: Unpack[EncoderOptions]) -> None:
        super().__init__(
            feature_dims,
            FusionTeacher(feature_dims, num_classes, **options),
            MMINStudent(feature_dims, num_classes, **options),
        )
