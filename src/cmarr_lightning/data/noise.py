r"""Seeded noise in the features of an utterance: a matter of the data, for all methods alike.

.. math:: x' = m + \sqrt{\bar\alpha}\,(x - m) + \sqrt{1 - \bar\alpha}\; s\,\varepsilon

with the training fold's mean m and standard deviation s of the column, so that a level means the same for every
modality, and with the noise of NMER's released program (https://github.com/WooyoohL/Noise-robust_MER):

* Gaussian: :math:`\varepsilon \sim N(0, 1)` for every value; the variance of a standardised column stays 1.
* Impulse: :math:`\varepsilon = \pm 1` in 30 % of the values and 0 in the others.

The *level* is :math:`1 - \bar\alpha`: 0 changes nothing, 1 leaves nothing of x. Of Gaussian noise it is the share in
the variance; impulses, of variance 0.3, make the variance smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from cmarr_lightning.data.conditions import counter_hash, utterance_keys
from cmarr_lightning.data.scaling import FeatureStatistics
from cmarr_lightning.errors import InputError

__all__ = [
    "IMPULSES",
    "STEPS",
    "Noise",
    "NoiseSchedule",
    "NoiseSource",
    "NoiseType",
    "noise_levels",
    "parse_noise",
    "read_noise",
]

NoiseType: TypeAlias = Literal["gaussian", "impulse"]

NoiseSchedule: TypeAlias = Literal["constant", "scaled_linear", "linear", "cosine", "sigmoid"]
r"""How levels are drawn: always the same one, or :math:`1 - \bar\alpha_t` of a random step t of a diffusion."""

IMPULSES = 0.3
"""Share of the values that an impulse hits."""

STEPS = 100
"""T, steps of a diffusion."""

_FIRST, _LAST = 0.01, 0.5  # NMER's beta_start and beta_end


@dataclass(frozen=True)
class Noise:
    """What is added to the features, and how strongly.

    Attributes:
        type: `gaussian` or `impulse`.
        level: In [0, 1]: that of the schedule `constant`; a factor on the levels of the others.
        schedule: `constant`, or how the levels of the steps t ~ U{0..99} rise: `scaled_linear` is NMER's.
        modalities: Which are hit; all by default.
        probability: Share of the utterances that are hit, drawn anew for every modality and epoch.

    Raises:
        InputError: A value outside its range.
    """

    type: NoiseType = "gaussian"
    level: float = 1.0
    schedule: NoiseSchedule = "scaled_linear"
    modalities: list[str] | None = None
    probability: float = 0.5

    def __post_init__(self) -> None:
        for key, known in (("type", get_args(NoiseType)), ("schedule", get_args(NoiseSchedule))):
            if getattr(self, key) not in known:
                raise InputError(f"noise: unknown {key} {getattr(self, key)!r}", remedy=f"use {', '.join(known)}")
        for key in ("level", "probability"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"noise: {key} is {getattr(self, key)}", remedy="set it to 0 or more, at most 1")

    @property
    def name(self) -> str:
        """The name of a constant noise, which `parse_noise` reads."""
        return "-".join([self.type, f"{self.level:g}", *(["+".join(self.modalities)] if self.modalities else [])])

    def check_modalities(self, modalities: Sequence[str]) -> None:
        """Refuse modalities that the data lack.

        Raises:
            InputError: There is one.
        """
        for modality in self.modalities or ():
            if modality not in modalities:
                raise InputError(
                    f"noise: no modality {modality!r} in the data", remedy=f"use modalities of {', '.join(modalities)}"
                )


def read_noise(noise: Noise | Mapping[str, Any] | None) -> Noise | None:
    """Read a noise from what a configuration holds: the attributes of `Noise`.

    Raises:
        InputError: An unknown attribute, or a value outside its range.
    """
    if noise is None or isinstance(noise, Noise):
        return noise
    known = [field.name for field in fields(Noise)]
    if unknown := sorted(set(noise) - set(known)):
        raise InputError(f"noise: unknown setting {unknown[0]!r}", remedy=f"use {', '.join(known)}")
    return Noise(**noise)


def parse_noise(name: str) -> Noise:
    """Read the noise of an evaluation: type, level and, where not all are hit, modalities.

    Raises:
        InputError: Not such a name.

    Examples:
        >>> parse_noise("impulse-0.3-audio+video").modalities
        ['audio', 'video']
    """
    kind, _, rest = name.partition("-")
    level, _, modalities = rest.partition("-")
    try:
        value = float(level)
    except ValueError:
        raise InputError(
            f"noise {name!r}: no level", remedy="write type and level, e.g. gaussian-0.3 or impulse-0.5-audio"
        ) from None
    if kind not in get_args(NoiseType):
        raise InputError(f"noise {name!r}: unknown type {kind!r}", remedy=f"use {', '.join(get_args(NoiseType))}")
    if not 0 <= value <= 1:
        raise InputError(f"noise {name!r}: level {level}", remedy="use a level from 0 to 1")
    hit = modalities.split("+") if modalities else None
    return Noise(type=kind, level=value, schedule="constant", modalities=hit, probability=1.0)  # type: ignore[arg-type]


@cache
def noise_levels(schedule: NoiseSchedule) -> tuple[float, ...]:
    r"""Return the level :math:`1 - \bar\alpha_t = 1 - \prod_{j \le t} (1 - \beta_j)` of every step t < T.

    * `linear`: :math:`\beta` from 0.01 to 0.5 in equal steps; `scaled_linear`: its square root in equal steps.
    * `sigmoid`: from 0.01 to 0.5 along a sigmoid over [-6, 6].
    * `cosine`: :math:`\bar\alpha` falls along a squared cosine (Nichol and Dhariwal, 2021, eq. 17),
      :math:`\beta \le 0.999`.
    * `constant`: 1 at every step.
    """
    if schedule == "constant":
        return (1.0,) * STEPS
    if schedule == "linear":
        beta = np.linspace(_FIRST, _LAST, STEPS)
    elif schedule == "scaled_linear":
        beta = np.linspace(_FIRST**0.5, _LAST**0.5, STEPS) ** 2
    elif schedule == "sigmoid":
        beta = _FIRST + (_LAST - _FIRST) / (1 + np.exp(-np.linspace(-6, 6, STEPS)))
    else:
        kept = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    return tuple((1 - np.cumprod(1 - beta)).tolist())


@dataclass(frozen=True)
class NoiseSource:
    """Noise ready to be added to batches: the same for an utterance whoever its batch mates are.

    A pure function of (seed, utterance, modality, epoch); two levels of a type add the same noise more or less
    strongly. NaN cells stay NaN.

    Note:
        Noisy features are clipped to the training fold's range later, by the model's scaler, like any others; NMER
        adds noise to scaled features. NMER draws one step t per batch, we draw one per utterance.

    Attributes:
        noise: What is added.
        statistics: Per modality those of the training rows.
        seed: Of the draws, any integer.
    """

    noise: Noise
    statistics: Mapping[str, FeatureStatistics]
    seed: int = 0

    def add(self, features: np.ndarray, lengths: np.ndarray, modality: str, keys: np.ndarray, epoch: int) -> np.ndarray:
        """Return the features of a modality with noise.

        Args:
            features: (B, T, D) float32, unscaled; left as they are.
            lengths: (B,) frames; those behind stay as they are.
            modality: Its name.
            keys: (B,) uint64 from `utterance_keys`.
            epoch: Counted from 0.
        """
        noise, noisy = self.noise, features.copy()
        if noise.modalities is not None and modality not in noise.modalities:
            return noisy
        mean, std = self.statistics[modality].mean, self.statistics[modality].std
        streams = counter_hash(keys ^ utterance_keys([modality]), self.seed, epoch)
        for row, length in enumerate(lengths):
            random = np.random.Generator(np.random.Philox(key=int(streams[row])))
            hit, step = random.random() < noise.probability, int(random.integers(STEPS))
            level = noise.level * noise_levels(noise.schedule)[step]
            if hit and level > 0:
                x = noisy[row, :length]
                epsilon = _draw(noise.type, random, x.shape)
                x[:] = mean + np.float32(np.sqrt(1 - level)) * (x - mean) + np.float32(np.sqrt(level)) * std * epsilon
        return noisy


def _draw(kind: NoiseType, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw epsilon, float32."""
    normal = random.standard_normal(shape, dtype=np.float32)
    if kind == "gaussian":
        return normal
    return np.where(random.random(shape, dtype=np.float32) < IMPULSES, np.sign(normal), np.float32(0))
