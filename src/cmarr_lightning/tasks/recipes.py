"""How methods are trained: optimisers and schedules; the peers as they were published, or as CM-ARR is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from cmarr_lightning.nn.utterance_encoders import EncoderName
from cmarr_lightning.tasks.schedules import linear_decay, warmup_cosine

__all__ = ["RECIPES", "Recipe", "RecipeName", "StageSteps", "decay_matrices", "published_stages", "shared_stages"]

RecipeName: TypeAlias = Literal["published", "shared"]


class Recipe(NamedTuple):
    """Settings that a recipe fixes unless they are given.

    Attributes:
        learning_rate: Peak.
        weight_decay: Of AdamW; Adam has none.
        balance_classes: Exponent of the inverse class frequencies in the cross-entropy.
        label_smoothing: Of the cross-entropy.
        average_decay: Of the averaged weights; 0 = none.
        vector_encoder: What reads utterance vectors.
    """

    learning_rate: float
    weight_decay: float
    balance_classes: float
    label_smoothing: float
    average_decay: float
    vector_encoder: EncoderName


RECIPES: dict[RecipeName, Recipe] = {
    "published": Recipe(2e-4, 0.0, 0.0, 0.0, 0.0, "mlp"),
    "shared": Recipe(2e-3, 1e-2, 0.75, 0.1, 0.99, "norm_mlp"),
}
"""`published`: Adam. `shared`: AdamW with the defaults of `CMARRTask`, and its layers for vectors."""


class StageSteps(NamedTuple):
    """Lengths of the two stages.

    Attributes:
        per_epoch: Optimiser steps of an epoch.
        first: Steps of stage 1.
        total: Steps of both.
    """

    per_epoch: int
    first: int
    total: int


Factors: TypeAlias = list[Callable[[int], float]]


def decay_matrices(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Make the groups of AdamW: weight matrices decay; vectors (biases, gains) and scalars do not."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def published_stages(
    teacher: nn.Module, student: nn.Module, steps: StageSteps, learning_rate: float, *, fused: bool
) -> tuple[Optimizer, Factors]:
    """Make Adam with betas of its own per stage; the rate is constant for half of the epochs of a stage, then falls."""
    groups = [
        {"params": list(part.parameters()), "betas": betas}
        for part, betas in ((teacher, (0.9, 0.999)), (student, (0.5, 0.999)))
    ]
    epochs = steps.first // steps.per_epoch
    later = -(-steps.total // steps.per_epoch) - epochs
    return torch.optim.Adam(groups, lr=learning_rate, fused=fused), [
        lambda step: linear_decay(step // steps.per_epoch, epochs - epochs // 2, epochs // 2),
        lambda step: linear_decay(max(0, step // steps.per_epoch - epochs), later - later // 2, later // 2),
    ]


def shared_stages(
    teacher: nn.Module,
    student: nn.Module,
    steps: StageSteps,
    learning_rate: float,
    weight_decay: float,
    warmup_fraction: float,
    *,
    fused: bool,
) -> tuple[Optimizer, Factors]:
    """Make CM-ARR's AdamW; each stage has its own warm-up and half cosine."""
    groups = [group for part in (teacher, student) for group in decay_matrices(part.parameters(), weight_decay)]

    def of_teacher(step: int) -> float:
        return warmup_cosine(step, max(1, steps.first), warmup_fraction)

    def of_student(step: int) -> float:
        return warmup_cosine(max(0, step - steps.first), steps.total - steps.first, warmup_fraction)

    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused), [of_teacher, of_teacher, of_student, of_student]
