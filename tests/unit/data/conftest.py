"""Small made-up stores for the tests of the data layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter

StoreMaker: TypeAlias = Callable[..., FeatureStore]
CLASSES = ("angry", "happy", "neutral", "sad")


@pytest.fixture
def make_store(tmp_path: Path) -> StoreMaker:
    """Write a store from lists of arrays, None = absent, and columns of the manifest."""

    def make(
        features: Mapping[str, Sequence[np.ndarray | None]],
        columns: Mapping[str, Sequence[Any]] | None = None,
        folder: Path = tmp_path / "store",
    ) -> FeatureStore:
        return _write(folder, features, columns or {})

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """96 utterances of 8 speakers in 4 sessions, 4 classes; audio ragged, video of one length, text vectors.

    Every tenth utterance lacks audio, every seventh video; none lacks text. Values are 1 or larger.
    """
    random = np.random.default_rng(0)
    number = range(96)
    session = [1 + i // 24 for i in number]
    gender = ["FM"[i // 12 % 2] for i in number]
    columns = {
        "session": [f"Ses0{s}" for s in session],
        "speaker": [f"Ses0{s}{g}" for s, g in zip(session, gender, strict=True)],
        "gender": gender,
        "label": [CLASSES[i % 4] for i in number],
        "emotion": [("anger", "excited", "neutral", "sadness")[i % 4] for i in number],
        "scenario": [("improvised", "scripted")[i // 4 % 2] for i in number],
        "recording": ["SPT"[i // 4 % 3] for i in number],
    }

    def block(*shape: int) -> np.ndarray:
        return (1 + random.random(shape)).astype(np.float32)

    features = {
        "audio": [None if i % 10 == 9 else block(int(random.integers(1, 30)), 3) for i in number],
        "video": [None if i % 7 == 6 else block(4, 2) for i in number],
        "text": [block(5).astype(np.float16) for i in number],
    }
    return _write(tmp_path_factory.mktemp("corpus") / "store", features, columns)


def _write(
    folder: Path, features: Mapping[str, Sequence[np.ndarray | None]], columns: Mapping[str, Sequence[Any]]
) -> FeatureStore:
    count = len(next(iter(features.values())))
    ids = [f"u{i:04d}" for i in range(count)]
    table = pd.DataFrame({"utterance_id": ids, **columns})
    with FeatureStoreWriter(folder, table, tuple(features), name="made up", source="made up") as writer:
        for i, name in enumerate(ids):
            writer.add(name, {m: arrays[i] for m, arrays in features.items() if arrays[i] is not None})
    return FeatureStore.open(folder)
