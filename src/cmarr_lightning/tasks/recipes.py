"""How the peers are trained: as they were published, or as CM-ARR is."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["RECIPES", "Recipe", "RecipeName"]

RecipeName: TypeAlias = Literal["published", "shared"]


class Recipe(NamedTuple):
    """Settings that a recipe fixes unless they are given.

    Attributes:
        learning_rate: Peak.
        weight_decay: Of AdamW; Adam has none.
        balance_classes: Exponent of the inverse class frequencies in the cross-entropy.
        label_smoothing: Of the cross-entropy.
        average_decay: Of the averaged weights; 0 = none.
    """

    learning_rate: float
    weight_decay: float
    balance_classes: float
    label_smoothing: float
    average_decay: float


RECIPES: dict[RecipeName, Recipe] = {
    "published": Recipe(2e-4, 0.0, 0.0, 0.0, 0.0),
    "shared": Recipe(2e-3, 1e-2, 0.75, 0.1, 0.99),
}
"""`published`: Adam. `shared`: AdamW with the defaults of `CMARRTask`."""
