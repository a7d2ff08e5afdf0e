"""Synthetic corpora with the shapes and class sizes of real ones: for demonstrations, tests, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

__all__ = ["PRESETS", "synthesize"]

_LATENT = 16
_WITHIN_CLASS, _BETWEEN_SPEAKERS, _FRAME_NOISE = 1.2, 0.3, 1.5
_BLOCK = 256  # utterances; 23 MB of the widest modality
_DIALOGUE = 32  # utterances


@dataclass(frozen=True)
class _Frames:
    """Number of frames per utterance: log-normal, clipped; constant when sigma = 0."""

    median: float
    sigma: float = 0.0
    shortest: int = 1
    longest: int = 10_000

    def draw(self, n: int, random: np.random.Generator) -> np.ndarray:
        frames = self.median * np.exp(self.sigma * random.standard_normal(n))
        return frames.round().astype(np.int64).clip(self.shortest, self.longest)


@dataclass(frozen=True)
class _Modality:
    """How the latent of an utterance shows in one modality."""

    dim: int
    frames: _Frames
    noise: float  # standard deviation in the latent space, shared by the frames of an utterance
    rectified: bool = False
    scale: float = 1.0
    mixed_units: bool = False  # every column has a scale and an offset of its own


@dataclass(frozen=True)
class _Preset:
    """Class sizes, speakers and modalities of a corpus.

    `column` is one more column of the table, and how many dialogues in a thousand have which value.
    """

    classes: dict[str, int]
    speakers: dict[str, str]  # speaker -> session, ordered by session
    modalities: dict[str, _Modality]
    column: str
    shares: dict[str, int]


_VIDEO = _Modality(342, _Frames(50), noise=2.9, rectified=True)
_TEXT = _Modality(1024, _Frames(22), noise=1.5, scale=0.35)

PRESETS: dict[str, _Preset] = {
    "iemocap": _Preset(
        classes={"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084},
        speakers={f"Ses{k:02d}{sex}": f"Ses{k:02d}" for k in range(1, 6) for sex in "FM"},
        modalities={
            "audio": _Modality(130, _Frames(38, 0.62, 6, 340), noise=2.3, mixed_units=True),
            "video": _VIDEO,
            "text": _TEXT,
        },
        column="scenario",
        shares={"improvised": 532, "scripted": 468},
    ),
    "msp-improv": _Preset(
        classes={"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885},
        speakers={f"{sex}{k:02d}": f"Ses{k:02d}" for k in range(1, 7) for sex in "FM"},
        modalities={
            "audio": _Modality(130, _Frames(50), noise=2.3, mixed_units=True),
            "video": _VIDEO,
            "text": _TEXT,
        },
        column="recording",
        shares={"S": 505, "P": 339, "T": 82, "R": 74},
    ),
    "tiny": _Preset(
        classes={"angry": 56, "happy": 64, "neutral": 68, "sad": 52},
        speakers={f"Ses{k:02d}{sex}": f"Ses{k:02d}" for k in range(1, 5) for sex in "FM"},
        modalities={
            "audio": _Modality(12, _Frames(5, 0.4, 2, 9), noise=1.4, mixed_units=True),
            "video": _Modality(10, _Frames(6), noise=1.8, rectified=True),
            "text": _Modality(16, _Frames(5), noise=1.0, scale=0.35),
        },
        column="scenario",
        shares={"improvised": 500, "scripted": 500},
    ),
}


def synthesize(out: str | Path, preset: str = "tiny", seed: int = 0, overwrite: bool = False) -> FeatureStore:
    r"""Write a synthetic corpus as a feature store.

    Every utterance has a latent of 16 numbers that its modalities share,

    .. math:: u = p_{class} + 1.2\,\varepsilon + 0.3\,s_{speaker}, \qquad z_m = u + \sigma_m \varepsilon_m,

    and modality m shows it in each frame as :math:`x_t = g_t z_m W_m + 1.5\,\varepsilon_t` with a gain
    :math:`g_t \sim U(0.5, 1.5)`. So no modality says everything, and each says something about the others.

    Args:
        out: The store to write.
        preset: "iemocap" (5,531 utterances, 0.9 GB), "msp-improv" (7,798, 1.4 GB) or "tiny" (240).
        seed: The same seed gives the same store.
        overwrite: Replace an existing store.

    Returns:
        The new store, marked as synthetic.

    Raises:
        InputError: Unknown preset, or `out` exists.
    """
    if preset not in PRESETS:
        raise InputError(f"no preset {preset!r}", remedy=f"use one of {', '.join(PRESETS)}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", remedy="use 0 or more")
    recipe = PRESETS[preset]
    # One stream per part: the table does not change when a modality does.
    for_table, for_latent, *for_modalities = np.random.SeedSequence(seed).spawn(2 + len(recipe.modalities))
    table = _table(recipe, np.random.default_rng(for_table))
    latent = _latent(recipe, table, np.random.default_rng(for_latent))
    blocks = {
        name: _blocks(modality, latent, np.random.default_rng(stream))
        for (name, modality), stream in zip(recipe.modalities.items(), for_modalities, strict=True)
    }
    writer = FeatureStoreWriter(
        out,
        table,
        tuple(recipe.modalities),
        name=f"synthetic {preset}",
        source=f"cmarr synthesize --preset {preset} --seed {seed}",
        synthetic=True,
        overwrite=overwrite,
    )
    with writer:
        for _ in range(0, len(table), _BLOCK):
            block = {name: next(stream) for name, stream in blocks.items()}
            writer.add_block(
                {name: values for name, (values, _) in block.items()},
                lengths={name: lengths for name, (_, lengths) in block.items()},
            )
    return FeatureStore.open(out)


def _table(recipe: _Preset, random: np.random.Generator) -> pd.DataFrame:
    """Draw who says what: classes and speakers at random, dialogues in order within their session."""
    labels = random.permutation(np.repeat(list(recipe.classes), list(recipe.classes.values())))
    n, speakers = len(labels), list(recipe.speakers)
    # Dealt out, not drawn, so that the speakers are equally large; sorted by session for the dialogues.
    speaker = np.resize(np.array(speakers), n)
    session = np.array([recipe.speakers[s] for s in speaker])
    order = np.argsort(session, kind="stable")
    speaker, session = speaker[order], session[order]
    within = np.arange(n) - np.searchsorted(session, session)
    dialogue = np.char.add(np.char.add(session, "-d"), np.char.zfill((within // _DIALOGUE + 1).astype(str), 3))
    _, dialogue_index = np.unique(dialogue, return_inverse=True)
    value = _dealt(recipe.shares, int(dialogue_index.max()) + 1, random)
    return pd.DataFrame(
        {
            "utterance_id": [f"synthetic-{i:05d}" for i in range(1, n + 1)],
            "dialogue_id": np.char.add("synthetic-", dialogue),
            "session": session,
            "speaker": speaker,
            "gender": ["F" if "F" in s else "M" for s in speaker],
            "label": labels,
            recipe.column: value[dialogue_index],
        }
    )


def _dealt(shares: dict[str, int], n: int, random: np.random.Generator) -> np.ndarray:
    """Shuffle n values whose shares are exact up to rounding, so that few dialogues have all values too."""
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    return random.permutation(np.array(list(shares))[np.searchsorted(ends, (np.arange(n) + 0.5) / n)])


def _latent(recipe: _Preset, table: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """Draw what the modalities of an utterance share: (N, 16)."""
    prototypes = random.standard_normal((len(recipe.classes), _LATENT))
    prototypes -= prototypes.mean(axis=0)
    offsets = _BETWEEN_SPEAKERS * random.standard_normal((len(recipe.speakers), _LATENT))
    label = table["label"].map(list(recipe.classes).index).to_numpy()
    speaker = table["speaker"].map(list(recipe.speakers).index).to_numpy()
    own = _WITHIN_CLASS * random.standard_normal((len(table), _LATENT))
    latent: np.ndarray = prototypes[label] + own + offsets[speaker]
    return latent


def _blocks(
    modality: _Modality, latent: np.ndarray, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw one modality, block by block: packed (F, D) float32 frames and the frames per utterance."""
    mixing = (random.standard_normal((_LATENT, modality.dim)) / 4).astype(np.float32)
    scale = np.full(modality.dim, modality.scale, dtype=np.float32)
    offset = np.zeros(modality.dim, dtype=np.float32)
    if modality.mixed_units:
        scale *= np.exp(random.standard_normal(modality.dim, dtype=np.float32))
        offset += 3 * random.standard_normal(modality.dim, dtype=np.float32)
    for start in range(0, len(latent), _BLOCK):
        shared = latent[start : start + _BLOCK]
        lengths = modality.frames.draw(len(shared), random)
        seen = (shared + modality.noise * random.standard_normal(shared.shape)).astype(np.float32) @ mixing
        frames = random.standard_normal((int(lengths.sum()), modality.dim), dtype=np.float32)
        frames *= _FRAME_NOISE
        gain = random.uniform(0.5, 1.5, len(frames)).astype(np.float32)
        frames += gain[:, None] * np.repeat(seen, lengths, axis=0)
        if modality.rectified:
            np.maximum(frames, 0, out=frames)
        frames *= scale
        frames += offset
        yield frames, lengths
