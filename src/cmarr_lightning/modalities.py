"""Named modalities and the conditions (which of them are present) under which a model works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from cmarr_lightning.errors import InputError

__all__ = [
    "Condition",
    "all_conditions",
    "condition_name",
    "condition_table",
    "incomplete_conditions",
    "parse_condition",
    "per_modality",
]

Condition: TypeAlias = tuple[str, ...]
"""The modalities that are present, in the order of the modalities of the data."""


def condition_name(condition: Sequence[str]) -> str:
    """Name a condition by what is present.

    Examples:
        >>> condition_name(("audio", "text"))
        'audio+text'
    """
    return "+".join(condition)


def parse_condition(name: str, modalities: Sequence[str]) -> Condition:
    """Read a condition's name; the inverse of `condition_name`.

    Raises:
        InputError: A part of the name is not a modality of the data, or stands twice.

    Examples:
        >>> parse_condition("text+audio", ("audio", "video", "text"))
        ('audio', 'text')
    """
    parts = name.split("+")
    if unknown := [part for part in parts if part not in modalities]:
        raise InputError(
            f"condition {name!r}: unknown modality {unknown[0]!r}",
            remedy=f"use {', '.join(modalities)} joined by '+'",
        )
    if len(set(parts)) < len(parts):
        raise InputError(f"condition {name!r} names a modality twice", remedy="name each modality once")
    return tuple(m for m in modalities if m in parts)


def all_conditions(modalities: Sequence[str]) -> tuple[Condition, ...]:
    """List every non-empty subset of the modalities: single ones first, the complete one last.

    Examples:
        >>> [condition_name(c) for c in all_conditions(("audio", "video", "text"))]
        ['audio', 'video', 'text', 'audio+video', 'audio+text', 'video+text', 'audio+video+text']
    """
    return tuple(c for size in range(1, len(modalities) + 1) for c in combinations(modalities, size))


def incomplete_conditions(modalities: Sequence[str]) -> tuple[Condition, ...]:
    """List the conditions in which something is missing: all but the last of `all_conditions`."""
    return all_conditions(modalities)[:-1]


def condition_table(modalities: Sequence[str], conditions: Sequence[Condition] | None = None) -> Tensor:
    """Write conditions as a table of presence.

    Args:
        modalities: The M modality names in the order of the columns.
        conditions: The K conditions in the order of the rows; all of them by default.

    Returns:
        (K, M) bool, True = present.

    Examples:
        >>> condition_table(("audio", "text")).int().tolist()
        [[1, 0], [0, 1], [1, 1]]
    """
    rows = all_conditions(modalities) if conditions is None else conditions
    return torch.tensor([[m in row for m in modalities] for row in rows], dtype=torch.bool)


def per_modality(option: str, value: float | Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Give an option that is one number for all modalities, or a number by name, a value for each of them.

    Raises:
        InputError: The names are not those of the modalities.

    Examples:
        >>> per_modality("input_dropout", 0.1, ("audio", "text"))
        {'audio': 0.1, 'text': 0.1}
        >>> per_modality("input_dropout", {"text": 0.4, "audio": 0.1}, ("audio", "text"))
        {'audio': 0.1, 'text': 0.4}
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(modalities, value)
    if set(value) != set(modalities):
        raise InputError(
            f"{option} names {', '.join(value) or 'nothing'}, the modalities are {', '.join(modalities)}",
            remedy="name each of them once, or give one number for all",
        )
    return {m: value[m] for m in modalities}
