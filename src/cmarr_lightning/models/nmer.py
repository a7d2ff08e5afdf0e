"""NMER: two encoders per modality, and a conditional variational auto-encoder in the place of the cascade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from cmarr_lightning.models.two_stage import CompleteOutput, EncoderOptions, Student, Teacher, TwoStageNetwork
from cmarr_lightning.nn.perceptrons import InvariantEncoder, MLPClassifier
from cmarr_lightning.nn.utterance_encoders import UtteranceEncoders
from cmarr_lightning.nn.variational import ConditionalVAE, VAEOutput

__all__ = ["NMERNetwork", "NMEROutput", "NMERStudent", "NMERTeacher"]


class NMEROutput(NamedTuple):
    """What `NMERStudent` computes for B utterances under K conditions.

    Attributes:
        logits: (B, K, C).
        imagined: (B, K, M, E), in (0, 1): the specific embeddings of the complete utterance.
        invariant: (B, K, M, E), q = S(g).
        posterior: Mean and log variance (B, K, Z).
    """

    logits: Tensor
    imagined: Tensor
    invariant: Tensor
    posterior: VAEOutput


class NMERTeacher(Teacher):
    r"""Classify from the specific embeddings h and the invariant ones: :math:`\mathrm{FC}([h_1; ...; S g_1; ...])`.

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        options: Of the encoders.

    Note:
        The released stage 1 adds a U-Net on the joint vectors of 64 utterances arranged as an image. Its target is
        reached by an output of 0, it does not touch the classifier and stage 2 does not use it, so it is left out.
    """

    inherited = ("specific", "common", "invariant")

    def __init__(self, feature_dims: Mapping[str, int], num_classes: int, **options: Unpack[EncoderOptions]) -> None:
        super().__init__()
        self.specific = UtteranceEncoders(feature_dims, **options)
        self.common = UtteranceEncoders(feature_dims, **options)
        self.invariant = InvariantEncoder(options["embed_dim"])
        self.classifier = MLPClassifier(2 * len(feature_dims) * options["embed_dim"], num_classes, dropout=0.2)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], observed: Tensor
    ) -> CompleteOutput:
        """Classify from everything that is observed (B, M) bool."""
        specific = self.specific(features, padding_mask, observed.unsqueeze(1)).squeeze(1)
        invariant = self.invariant(self.common(features, padding_mask, observed.unsqueeze(1)).squeeze(1))
        logits = self.classifier(torch.cat([specific.flatten(1), invariant.flatten(1)], dim=-1))
        return CompleteOutput(logits, invariant)


class NMERStudent(Student):
    r"""Recover the specific embeddings under the invariant ones and classify from what was recovered.

    .. math::
        p = [h_{1A}; \dots; h_{MA}], \quad q = [S g_{1A}; \dots; S g_{MA}], \quad
        \hat x = \mathrm{VAE}(p \mid q), \quad \text{logits} = \mathrm{FC}(\hat x)

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        batch_attention: Whether the utterances of a batch attend to each other, see `ConditionalVAE`.
        options: Of the encoders.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        batch_attention: bool,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        dim = len(feature_dims) * options["embed_dim"]
        self.specific = UtteranceEncoders(feature_dims, **options)
        self.common = UtteranceEncoders(feature_dims, **options)
        self.invariant = InvariantEncoder(options["embed_dim"])
        self.vae = ConditionalVAE(dim, dim, batch_attention=batch_attention)
        self.classifier = MLPClassifier(dim, num_classes, dropout=0.1, batch_norm=True)

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor
    ) -> NMEROutput:
        """Classify under present (B, K, M) bool; features are scaled."""
        specific = self.specific(features, padding_mask, present)
        invariant = self.invariant(self.common(features, padding_mask, present))
        posterior: VAEOutput = self.vae(specific.flatten(2), invariant.flatten(2))
        # A condition with nothing present must not enter the statistics of batch normalisation; its logits are 0.
        usable = present.any(dim=-1)
        classified: Tensor = self.classifier(posterior.recovered[usable])
        logits = classified.new_zeros(*usable.shape, classified.shape[-1]).index_put((usable,), classified)
        return NMEROutput(logits, posterior.recovered.view_as(specific), invariant, posterior)


class NMERNetwork(TwoStageNetwork):
    """Noise-robust multimodal emotion recognition (2024), as its code describes it.

    Args:
        feature_dims: D per modality name.
        num_classes: C.
        batch_attention: Whether the utterances of a batch attend to each other, as in the released program. Off by
            default: a prediction would depend on its batch mates.
        options: Of the encoders.

    References:
        https://github.com/WooyoohL/Noise-robust_MER
    """

    teacher: NMERTeacher
    student: NMERStudent

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        batch_attention: bool = False,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(
            feature_dims,
            NMERTeacher(feature_dims, num_classes, **options),
            NMERStudent(feature_dims, num_classes, batch_attention, **options),
        )
