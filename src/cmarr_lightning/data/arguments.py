"""What a data module may be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmarr_lightning.errors import InputError

if TYPE_CHECKING:
    from cmarr_lightning.data.datamodule import FeatureDataModule

__all__ = ["check_arguments"]


def check_arguments(data: FeatureDataModule) -> None:
    """Refuse modalities, noise and numbers that cannot be.

    Raises:
        InputError: There is one; the message names it and the remedy.
    """
    known = data.store.modalities
    if unknown := [m for m in data.modalities if m not in known]:
        raise InputError(
            f"{data.store.path}: no modality {unknown[0]!r}", remedy=f"use modalities of {', '.join(known)}"
        )
    if not data.modalities or len(set(data.modalities)) < len(data.modalities):
        raise InputError(
            f"modalities {data.modalities}: none, or one twice", remedy=f"name different ones of {', '.join(known)}"
        )
    for noise in [*([data.noise] if data.noise else []), *data.test_noise]:
        noise.check_modalities(data.modalities)
    names = [noise.name for noise in data.test_noise]
    if len(set(names)) < len(names):
        raise InputError(f"`test_noise` names a noise twice: {', '.join(names)}", remedy="name each noise once")
    pairs = "2 or more: contrastive losses compare utterances"
    limits: tuple[tuple[str, float, bool, str], ...] = (
        ("batch_size", data.batch_size, data.batch_size >= 2, pairs),
        ("eval_batch_size", data.eval_batch_size, data.eval_batch_size >= 1, "1 or more"),
        ("clip_quantile", data.clip_quantile, 0 <= data.clip_quantile < 0.5, "0 or more, below 0.5"),
        ("seed", data.seed, data.seed >= 0, "0 or more"),
        ("num_workers", data.num_workers, data.num_workers >= 0, "0 or more"),
    )
    for name, value, good, remedy in limits:
        if not good:
            raise InputError(f"{name} is {value}", remedy=f"set it to {remedy}")
