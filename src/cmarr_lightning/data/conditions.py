"""Seeded draws of what each utterance lacks: a condition per epoch of training, a mask per missing rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal, TypeAlias

import numpy as np

__all__ = ["ConditionDraw", "counter_hash", "draw_conditions", "draw_missing", "utterance_keys"]

ConditionDraw: TypeAlias = Literal["all", "incomplete"]
"""Which non-empty subsets of the observed modalities are drawn: all, or only those that lack something."""

_WORD = 2**64 - 1


def utterance_keys(utterance_ids: Iterable[str]) -> np.ndarray:
    """Hash utterance ids, the same on every machine and in every run.

    Returns:
        (N,) uint64.

    Examples:
        >>> utterance_keys(["a", "b"])
        array([3405396810240292928, 8453121595177857668], dtype=uint64)
    """
    digests = [blake2b(name.encode(), digest_size=8).digest() for name in utterance_ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def draw_conditions(
    observed: np.ndarray, keys: np.ndarray, *, seed: int, epoch: int, draw: ConditionDraw = "all"
) -> np.ndarray:
    r"""Draw for each utterance one non-empty subset of the modalities that it has, uniformly.

    A pure function of (seed, utterance, epoch): batch mates, order, workers and the number of processes
    change nothing.

    .. math:: c = 1 + h(\text{seed}, \text{utterance}, \text{epoch}) \bmod n, \qquad
       n = 2^k - 1 \;\text{("all")}, \quad n = 2^k - 2 \;\text{("incomplete", } k > 1)

    and bit r of the code c tells whether the r-th of the k observed modalities is present.

    Args:
        observed: (B, M) bool, True = on disk; no row all False.
        keys: (B,) uint64 from `utterance_keys`.
        seed: Any integer.
        epoch: Counted from 0.
        draw: "incomplete" leaves out the subset of everything observed, unless that is a single modality.

    Returns:
        (B, M) bool, a subset of `observed`, no row all False.
    """
    k = observed.sum(axis=1).astype(np.uint64)
    subsets = (np.uint64(1) << k) - np.uint64(1)
    if draw == "incomplete":
        subsets -= (k > 1).astype(np.uint64)
    code = np.uint64(1) + counter_hash(keys, seed, epoch) % subsets
    rank = np.maximum(observed.cumsum(axis=1) - 1, 0).astype(np.uint64)
    drawn: np.ndarray = observed & ((code[:, None] >> rank) & np.uint64(1)).astype(bool)
    return drawn


def draw_missing(keys: np.ndarray, modalities: Sequence[str], rate: float, *, seed: int = 0) -> np.ndarray:
    r"""Draw for each utterance which modalities a random missing rate leaves; one always stays.

    One modality, drawn uniformly, stays; each other is missing with the probability

    .. math:: p = \min\left(1, \frac{r M}{M - 1}\right)

    so that a share r of all modalities is missing, at most (M - 1) / M of them, as in the protocol of GCNet. A pure
    function of (seed, utterance, modality): what is missing at some rate is missing at every higher one.

    Args:
        keys: (B,) uint64 from `utterance_keys`.
        modalities: The M names.
        rate: r in [0, 1].
        seed: Any integer.

    Returns:
        (B, M) bool, True = present, no row all False.
    """
    of_modality = [keys ^ key for key in utterance_keys(modalities)]
    stays = np.stack([counter_hash(each, seed, 0) for each in of_modality], axis=1).argmin(axis=1)
    uniform = np.stack([counter_hash(each, seed, 1) for each in of_modality], axis=1) / 2.0**64
    present: np.ndarray = uniform >= rate * len(modalities) / max(1, len(modalities) - 1)
    present[np.arange(len(keys)), stays] = True
    return present


def counter_hash(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Mix keys (B,) uint64, seed and epoch into (B,) uniform uint64.

    Each step is a bijection, so no two utterances collide.
    """
    of_seed = _splitmix64(np.array([seed & _WORD], dtype=np.uint64))
    of_epoch = _splitmix64(of_seed + np.uint64(epoch & _WORD))
    return _splitmix64(keys ^ of_epoch)


def _splitmix64(x: np.ndarray) -> np.ndarray:
    """Scramble (B,) uint64: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
