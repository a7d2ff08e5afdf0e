"""Synthetic corpora: reproducible, marked, and with the class sizes and shapes they promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.data.corpora import synthetic
from cmarr_lightning.data.corpora.synthetic import PRESETS, synthesize
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return synthesize(tmp_path_factory.mktemp("tiny") / "store", "tiny", seed=0)


def test_a_synthetic_store_says_so(tiny: FeatureStore) -> None:
    assert tiny.synthetic
    assert "synthetic" in tiny.name
    assert tiny.source == "cmarr synthesize --preset tiny --seed 0"
    assert tiny.manifest["utterance_id"].str.match(r"synthetic-\d{5}$").all()
    tiny.verify()


def test_tiny_has_three_ragged_modalities_and_every_speaker_in_one_session(tiny: FeatureStore) -> None:
    assert len(tiny) == 240
    assert tiny.dims == {"audio": 12, "video": 10, "text": 16}
    assert len(np.unique(tiny.lengths("audio"))) > 3
    assert 1 <= tiny.lengths("audio").min() <= tiny.lengths("audio").max() <= 9
    assert set(tiny.lengths("video")) == {6}
    assert set(tiny.lengths("text")) == {5}
    by_speaker = tiny.manifest.groupby("speaker")
    assert by_speaker.size().tolist() == [30] * 8
    assert (by_speaker["session"].nunique() == 1).all()
    assert (tiny.manifest.groupby("session")["label"].nunique() == 4).all()
    assert (tiny.manifest.groupby("dialogue_id")["session"].nunique() == 1).all()
    assert set(tiny.manifest["scenario"]) == {"improvised", "scripted"}


def test_the_same_seed_gives_the_same_store_and_another_one_another(tmp_path: Path, tiny: FeatureStore) -> None:
    assert synthesize(tmp_path / "same", "tiny", seed=0).checksum == tiny.checksum
    assert synthesize(tmp_path / "other", "tiny", seed=1).checksum != tiny.checksum


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tiny_can_be_learnt_from_every_modality_and_better_from_all(tmp_path: Path, seed: int) -> None:
    """Nearest class mean of standardised time means, first two sessions against the last two."""
    store = synthesize(tmp_path / "store", "tiny", seed=seed)
    labels = store.manifest["label"].to_numpy()
    train = store.manifest["session"].isin(["Ses01", "Ses02"]).to_numpy()
    views = {}
    for m in store.modalities:
        means = np.add.reduceat(store.values(m), store.offsets(m)[:-1], axis=0) / store.lengths(m)[:, None]
        views[m] = (means - means[train].mean(axis=0)) / means[train].std(axis=0)

    def accuracy(features: np.ndarray) -> float:
        names = np.unique(labels)
        centres = np.stack([features[train & (labels == name)].mean(axis=0) for name in names])
        distance = ((features[~train, None] - centres) ** 2).sum(axis=2)
        return float((names[distance.argmin(axis=1)] == labels[~train]).mean())

    alone = {m: accuracy(view) for m, view in views.items()}
    assert min(alone.values()) > 0.35  # chance: 0.28, always the largest class
    assert accuracy(np.hstack(list(views.values()))) > np.mean(list(alone.values())) + 0.05


@pytest.mark.parametrize(
    ("preset", "classes", "sessions", "column", "values"),
    [
        (
            "iemocap",
            {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084},
            5,
            "scenario",
            {"improvised", "scripted"},
        ),
        (
            "msp-improv",
            {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885},
            6,
            "recording",
            {"S", "P", "T", "R"},
        ),
    ],
)
def test_presets_have_the_class_sizes_and_speakers_of_the_corpus(
    preset: str, classes: dict[str, int], sessions: int, column: str, values: set[str]
) -> None:
    table = synthetic._table(PRESETS[preset], np.random.default_rng(0))
    assert table["label"].value_counts().to_dict() == classes
    assert table["session"].nunique() == sessions
    assert table["speaker"].nunique() == 2 * sessions
    assert table.groupby("speaker")["gender"].nunique().eq(1).all()
    assert table["gender"].value_counts(normalize=True).between(0.49, 0.51).all()
    assert set(table[column]) == values


@pytest.mark.parametrize("preset", ["iemocap", "msp-improv"])
def test_presets_have_the_shapes_of_the_usual_features(preset: str) -> None:
    modalities, random = PRESETS[preset].modalities, np.random.default_rng(0)
    latent = np.zeros((synthetic._BLOCK, 16))
    blocks = {m: next(synthetic._blocks(modalities[m], latent, random)) for m in modalities}
    assert {m: frames.shape[1] for m, (frames, _) in blocks.items()} == {
        "audio": 130,
        "video": 342,
        "text": 1024,
    }
    assert all(frames.dtype == np.float32 for frames, _ in blocks.values())
    assert set(blocks["video"][1]) == {50}
    assert set(blocks["text"][1]) == {22}
    assert blocks["video"][0].min() == 0
    audio = blocks["audio"][1]
    if preset == "iemocap":
        assert 6 <= audio.min() < 20 < 100 < audio.max() <= 340
    else:
        assert set(audio) == {50}


def test_unknown_presets_and_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no preset 'mosi'.*iemocap, msp-improv, tiny"):
        synthesize(tmp_path / "store", "mosi")
    with pytest.raises(InputError, match="seed -1 is negative"):
        synthesize(tmp_path / "store", "tiny", seed=-1)


def test_an_existing_store_is_kept_unless_overwriting(tmp_path: Path) -> None:
    first = synthesize(tmp_path / "store", "tiny", seed=0)
    with pytest.raises(InputError, match="exists already"):
        synthesize(tmp_path / "store", "tiny", seed=1)
    assert FeatureStore.open(first.path).checksum == first.checksum
    assert synthesize(tmp_path / "store", "tiny", seed=1, overwrite=True).checksum != first.checksum
