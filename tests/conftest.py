"""Made-up stores, a tiny configuration and the command line in process, shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import lightning.pytorch  # noqa: F401  (its log handler must not get hold of a test's captured stderr)
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from cmarr_lightning.cli import main
from cmarr_lightning.data.corpora.synthetic import synthesize
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter

os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
torch.set_num_threads(1)

Command: TypeAlias = Callable[..., int]
CLASSES = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def config() -> Path:
    """A configuration that lacks nothing but the store."""
    return Path(__file__).parent / "conf" / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic corpus: 240 utterances, 4 sessions, audio, video and text on all of them. To be read only."""
    return synthesize(tmp_path_factory.mktemp("stores") / "tiny", "tiny", seed=0).path


@pytest.fixture(scope="session")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another synthetic corpus like `tiny_store`: a network may be scored on any fold of it. To be read only."""
    return synthesize(tmp_path_factory.mktemp("stores") / "other", "tiny", seed=1).path


@pytest.fixture(scope="session")
def gappy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """123 utterances, 31 of them in the first session; many lack a modality on disk. To be read only."""
    random = np.random.default_rng(1)
    observed = random.random((123, 3)) > 0.25
    observed[~observed.any(axis=1)] = True
    return _write_store(tmp_path_factory.mktemp("stores") / "gappy", observed).path


@pytest.fixture(scope="session")
def write_store() -> Callable[..., FeatureStore]:
    """Get the function that writes a made-up store: folder, observed (N, M), labels."""
    return _write_store


@pytest.fixture
def cmarr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run the command line in process, in an empty folder."""
    return _in_folder(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path, config: Path) -> Path:
    """A run of two epochs on the tiny store."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        assert _in_folder(patch, folder)("fit", "-c", config, "--data.store", tiny_store, "--run", "run") == 0
    return folder / "run"


@pytest.fixture
def trained_run(_trained: Path, tmp_path: Path) -> Path:
    """A copy of a run of two epochs on the tiny store, as `run` in the working folder of `cmarr`."""
    return Path(shutil.copytree(_trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def tiny_crossval(tmp_path_factory: pytest.TempPathFactory, config: Path) -> tuple[Path, str]:
    """Folder and output of `cmarr crossval`: three folds of two epochs on a store as `tiny_store`. To be read only.

    Trained once for all workers of pytest-xdist, whose folders lie beside each other.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "protocol"
    folder, printed = shared / "cv", shared / "printed.txt"
    with FileLock(f"{shared}.lock"):
        if not printed.exists():
            store = synthesize(shared / "tiny", "tiny", seed=0).path
            words = ["crossval", "-c", str(config), "--out", str(folder), "--folds", "0,1,2", "--jobs", "2"]
            command = [sys.executable, "-m", "cmarr_lightning", *words, "--", "--data.store", str(store)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout, encoding="utf-8")
    return folder, printed.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_protocol(tiny_crossval: tuple[Path, str]) -> Path:
    """Folder of `tiny_crossval`. To be read only."""
    return tiny_crossval[0]


def _in_folder(patch: pytest.MonkeyPatch, folder: Path) -> Command:
    """Get a function that runs the command line there."""
    patch.chdir(folder)
    patch.setattr("sys.argv", ["cmarr"])
    return lambda *words: main([str(word) for word in words])


def _write_store(
    folder: Path, observed: np.ndarray, labels: Sequence[str] | None = None, *, vectors: bool = False
) -> FeatureStore:
    """Write a store with as many modalities as `observed` (N, M) has columns, in four sessions of two speakers.

    The modalities are called m0, m1, ... and have 4, 5, ... dimensions; even ones are sequences of 1 to 5 frames
    unless all shall be vectors. The values say something about the label; without `labels` the classes take turns.
    """
    random = np.random.default_rng(0)
    number = np.arange(len(observed))
    session = number % 4
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i:03d}" for i in number],
            "session": [f"S{s}" for s in session],
            "speaker": [f"S{s}{'FM'[i // 4 % 2]}" for i, s in zip(number, session, strict=True)],
            "label": [CLASSES[i // 4 % 4] for i in number] if labels is None else list(labels),
        }
    )
    names = [f"m{j}" for j in range(observed.shape[1])]
    with FeatureStoreWriter(folder, table, names, name="made up", source="made up", synthetic=True) as writer:
        for i in number:
            features = {}
            for j in np.flatnonzero(observed[i]):
                frames = () if vectors or j % 2 else (int(random.integers(1, 6)),)
                shape = (*frames, 4 + int(j))
                features[names[j]] = (random.standard_normal(shape) + i // 4 % 4).astype(np.float32)
            writer.add(f"u{i:03d}", features)
    return FeatureStore.open(folder)
