"""What MMIN, IF-MMIN and NMER have in common: a teacher for complete data and a student for incomplete data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from torch import Tensor, nn

from cmarr_lightning.nn.perceptrons import initialise_kaiming
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.nn.utterance_encoders import EncoderName, Padding, UtteranceEncoders

__all__ = ["CompleteOutput", "EncoderOptions", "Student", "Teacher", "TwoStageNetwork"]


class EncoderOptions(TypedDict):
    """How the encoders of a network are built; see `UtteranceEncoders`."""

    encoders: Mapping[str, EncoderName]
    embed_dim: int
    hidden_dim: int
    dropout: float
    input_dropout: float | Mapping[str, float]
    bounded: bool
    padding: Padding


class CompleteOutput(NamedTuple):
    """What a teacher computes for B utterances.

    Attributes:
        logits: (B, C).
        invariant: (B, M, E), what the modalities have in common; of width 0 where a method has no such features.
    """

    logits: Tensor
    invariant: Tensor


class Teacher(nn.Module):
    """The network of stage 1; a subclass gives `forward`. Encoders are attributes of the names in `inherited`."""

    inherited: tuple[str, ...]

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], observed: Tensor
    ) -> CompleteOutput:
        """Classify from everything that is observed (B, M); features are scaled."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


class Student(nn.Module):
    """The network of stage 2; a subclass gives `forward`, which returns a tuple with `logits` (B, K, C)."""

    def forward(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor
    ) -> Any:  # a named tuple per method
        """Classify under present (B, K, M) bool; features are scaled."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


class TwoStageNetwork(nn.Module):
    """A teacher, trained on complete data in stage 1, and the student that it then teaches with its weights frozen.

    Both read the same scaled features and begin with Kaiming weights; the student then inherits the teacher's
    encoders and trains them further.

    Args:
        feature_dims: D per modality name; the order of the names is the order of the M axis.
        teacher: Of stage 1.
        student: Of stage 2; has the teacher's inherited modules under the same names.
    """

    def __init__(self, feature_dims: Mapping[str, int], teacher: Teacher, student: Student) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.scaler = nn.ModuleDict({m: FeatureScaler(dim) for m, dim in feature_dims.items()})
        self.teacher = teacher
        self.student = student
        self.taught = False
        initialise_kaiming(self)

    def scale(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardise the features (B, T, D) per modality; the padding becomes 0 again."""
        return {
            m: self.scaler[m](features[m]).masked_fill_(padding_mask[m].unsqueeze(-1), 0.0) for m in self.modalities
        }

    def forward(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Return the student's logits (B, K, C) under present (B, K, M) bool; features as they come from a store."""
        logits: Tensor = self.student(self.scale(features, padding_mask), padding_mask, present).logits
        return logits

    def complete_logits(
        self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], observed: Tensor
    ) -> Tensor:
        """Return the teacher's logits (B, C) from everything observed (B, M) bool."""
        logits: Tensor = self.teacher(self.scale(features, padding_mask), padding_mask, observed).logits
        return logits

    def begin_student(self) -> None:
        """Hand the teacher's encoders to the student and freeze the teacher."""
        for name in self.teacher.inherited:
            getattr(self.student, name).load_state_dict(getattr(self.teacher, name).state_dict())
        self.freeze_teacher()

    def freeze_teacher(self) -> None:
        """Take no gradients of the teacher any more and keep it in evaluation mode."""
        self.taught = True
        self.teacher.requires_grad_(False)
        self.teacher.eval()

    def train(self, mode: bool = True) -> TwoStageNetwork:
        """Set the mode of all but a frozen teacher."""
        super().train(mode)
        if self.taught:
            self.teacher.eval()
        return self

    def subnetworks(self) -> list[nn.Module]:
        """List the parts that the published recipe clips one by one: every encoder, auto-encoder and classifier."""
        parts: list[nn.Module] = []
        for child in [*self.teacher.children(), *self.student.children()]:
            parts += child.encoder.values() if isinstance(child, UtteranceEncoders) else [child]
        return parts
