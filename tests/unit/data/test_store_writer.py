"""Writing a feature store: what comes back and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.data.store_writer import FeatureStoreWriter
from cmarr_lightning.errors import InputError

Corpus = list[dict[str, np.ndarray]]


def _table(n: int) -> pd.DataFrame:
    return pd.DataFrame({"utterance_id": [f"u{i}" for i in range(n)]})


def _writer(out: Path, n: int, modalities: tuple[str, ...] = ("audio", "text"), **more: object) -> FeatureStoreWriter:
    return FeatureStoreWriter(out, _table(n), modalities, name="mine", source="made up", **more)  # type: ignore[arg-type]


def _write(out: Path, corpus: Corpus, **more: object) -> FeatureStore:
    modalities = tuple(sorted({m for features in corpus for m in features}))
    with _writer(out, len(corpus), modalities, **more) as writer:
        for i, features in enumerate(corpus):
            writer.add(f"u{i}", features)
    return FeatureStore.open(out)


def _frames(*shape: int, value: float = 1.0) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


@st.composite
def _corpora(draw: st.DrawFn) -> Corpus:
    """Ragged corpora: 1..3 modalities, vectors or sequences, two precisions, absences."""
    forms = draw(
        st.lists(
            st.tuples(st.booleans(), st.integers(1, 4), st.sampled_from(["f2", "f4", "f8"])),
            min_size=1,
            max_size=3,
        )
    )
    corpus: Corpus = []
    for _ in range(draw(st.integers(1, 6))):
        present = draw(st.sets(st.integers(0, len(forms) - 1), min_size=1))
        features = {}
        for index in sorted(present):
            is_vector, dim, dtype = forms[index]
            shape = (dim,) if is_vector else (draw(st.integers(1, 5)), dim)
            elements = st.floats(-100, 100, width=16)
            features[f"m{index}"] = draw(hnp.arrays(dtype, shape, elements=elements))
        corpus.append(features)
    return corpus


@settings(max_examples=60, deadline=None)
@given(corpus=_corpora())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> None:
    store = _write(tmp_path_factory.mktemp("any") / "store", corpus)
    store.verify()
    assert len(store) == len(corpus)
    for row, features in enumerate(corpus):
        for modality in store.modalities:
            found = store.get(row, modality)
            if modality not in features:
                assert found.shape == (0, store.dims[modality])
                continue
            np.testing.assert_array_equal(found, np.atleast_2d(features[modality]))
            assert found.dtype == (np.float16 if features[modality].dtype == np.float16 else np.float32)
    observed = [[m in features for m in store.modalities] for features in corpus]
    assert store.observed().tolist() == observed
    assert store.counts["observed"] == dict(zip(store.modalities, np.sum(observed, axis=0), strict=True))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=8), split=st.integers(0, 8))
def test_blocks_and_single_utterances_make_the_same_store(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], split: int
) -> None:
    folder, n = tmp_path_factory.mktemp("any"), len(lengths)
    lengths[0] = max(lengths[0], 1)
    random = np.random.default_rng(0)
    audio = random.normal(size=(sum(lengths), 3)).astype("f4")
    text, video = random.normal(size=(n, 4)).astype("f2"), random.normal(size=(n, 2, 5))
    ends = np.cumsum(lengths)
    names = ("audio", "text", "video")
    with _writer(folder / "blocks", n, names) as writer:
        for rows in (slice(0, min(split, n)), slice(min(split, n), n)):
            part = np.array(lengths[rows], dtype=int)
            frames = audio[ends[rows.start] - lengths[rows.start] : ends[rows.stop - 1]] if len(part) else audio[:0]
            if len(part):
                features = {"audio": frames, "text": text[rows], "video": video[rows]}
                writer.add_block(features, lengths={"audio": part})
    with _writer(folder / "single", n, names) as writer:
        for i in range(n):
            features = {"text": text[i], "video": video[i]}
            if lengths[i]:
                features["audio"] = audio[ends[i] - lengths[i] : ends[i]]
            writer.add(f"u{i}", features)
    assert FeatureStore.open(folder / "blocks").checksum == FeatureStore.open(folder / "single").checksum


def test_nan_is_kept_and_counted_but_an_utterance_of_only_nan_lacks_the_modality(tmp_path: Path) -> None:
    partly, only = _frames(2, 3), _frames(4, 3, value=np.nan)
    partly[1, 2] = np.nan
    store = _write(
        tmp_path / "store",
        [
            {"audio": only, "text": _frames(2)},
            {"audio": partly},
            {"audio": _frames(1, 3), "text": _frames(2)},
        ],
    )
    assert store.lengths("audio").tolist() == [0, 2, 1]
    assert np.isnan(store.get(1, "audio")).tolist() == [[False] * 3, [False, False, True]]
    assert store.counts == {
        "utterances": 3,
        "observed": {"audio": 2, "text": 2},
        "nan_cells": {"audio": 1, "text": 0},
        "all_nan": {"audio": 1, "text": 0},
    }


def test_nan_policy_is_the_same_within_a_block(tmp_path: Path) -> None:
    audio = _frames(7, 2)
    audio[2:4] = np.nan  # all of u2
    audio[5, 1] = np.nan  # one value of u3
    with _writer(tmp_path / "store", 5) as writer:
        writer.add_block({"audio": audio, "text": _frames(5, 1)}, lengths={"audio": np.array([2, 0, 2, 2, 1])})
    store = FeatureStore.open(tmp_path / "store")
    assert store.lengths("audio").tolist() == [2, 0, 0, 2, 1]
    assert np.isnan(store.get(3, "audio")).tolist() == [[False, False], [False, True]]
    assert (store.counts["nan_cells"]["audio"], store.counts["all_nan"]["audio"]) == (1, 1)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"audio": _frames(3, 5)}, "utterance 'u1', audio: width 5, but width 2 in the utterances before"),
        ({"audio": _frames(3, 2).astype("f8")}, "dtype float64, but dtype float32"),
        ({"audio": _frames(2)}, "a vector, but a sequence"),
        ({"audio": _frames(0, 2)}, r"utterance 'u1', audio: empty, float32 array of shape \(0, 2\)"),
        ({"audio": _frames(2, 2, 2)}, r"shape \(2, 2, 2\)"),
        ({"audio": np.array([[1.0, 2.0], [3.0, np.inf]], "f4")}, r"'u1', audio: Inf .*frame 1, column 1"),
        ({"audio": np.array([[1.0, -np.inf]], "f4")}, "Inf"),
        ({"audio": np.ones((2, 2), int)}, "values are int64, not floats"),
        ({"audio": np.array([[None, 1.0]], dtype=object)}, "values are object, not floats"),
        ({"audio": _frames(2, 2).astype("c8")}, "values are complex64"),
        ({}, "made up: utterance 'u1' has none of the modalities audio, text"),
        ({"audio": _frames(2, 2, value=np.nan)}, "utterance 'u1' has none of the modalities"),
    ],
)
def test_features_that_cannot_be_used_are_refused_with_the_utterance(
    tmp_path: Path, second: Mapping[str, np.ndarray], expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        _write(tmp_path / "store", [{"audio": _frames(1, 2), "text": _frames(3)}, dict(second)])
    assert "Remedy" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="beyond float32"),
        _writer(tmp_path / "store", 1, ("audio",)) as writer,
    ):
        writer.add("u0", {"audio": np.array([[1.0, 1e300]])})


def test_the_file_of_an_utterance_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"'u0', audio \(x/u0\.npy\): Inf"),
        _writer(tmp_path / "s", 1) as writer,
    ):
        writer.add("u0", {"audio": _frames(1, 2, value=np.inf)}, files={"audio": "x/u0.npy"})


@pytest.mark.parametrize(("packed", "utterance", "frame"), [(1, "u0", 1), (2, "u3", 0), (4, "u3", 2)])
def test_inf_in_a_block_is_traced_to_its_utterance_past_absent_ones(
    tmp_path: Path, packed: int, utterance: str, frame: int
) -> None:
    audio = _frames(5, 2)
    audio[packed, 1] = np.inf
    with (
        pytest.raises(InputError, match=rf"utterance '{utterance}', audio: Inf .*frame {frame}, column 1"),
        _writer(tmp_path / "store", 4) as writer,
    ):
        writer.add_block({"audio": audio}, lengths={"audio": np.array([2, 0, 0, 3])})


def test_a_modality_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no utterance has the modality text"),
        _writer(tmp_path / "s", 1) as writer,
    ):
        writer.add("u0", {"audio": _frames(1, 2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        ((), "no modality"),
        (("../audio",), "not a usable name"),
        (("audio+text",), "not a usable name"),
        (("audio", "Audio"), "a name stands twice"),
    ],
)
def test_bad_names_of_modalities_are_refused(tmp_path: Path, modalities: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        _writer(tmp_path / "store", 1, modalities)


def test_rows_cannot_be_mixed_up_or_forgotten(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="'u1' is not the next"),
        _writer(tmp_path / "a", 2, ("audio",)) as writer,
    ):
        writer.add("u1", {"audio": _frames(1, 2)})
    with (
        pytest.raises(ValueError, match="1 of 2 utterances"),
        _writer(tmp_path / "b", 2, ("audio",)) as writer,
    ):
        writer.add("u0", {"audio": _frames(1, 2)})
    with pytest.raises(ValueError, match="1 are left"), _writer(tmp_path / "c", 1, ("audio",)) as writer:
        writer.add_block({"audio": _frames(2, 2)})
    with (
        pytest.raises(ValueError, match=r"\['video'\] were not announced"),
        _writer(tmp_path / "d", 1) as writer,
    ):
        writer.add("u0", {"video": _frames(2, 2)})
    with (
        pytest.raises(ValueError, match="lengths add up to 3, not to 2"),
        _writer(tmp_path / "e", 1) as writer,
    ):
        writer.add_block({"audio": _frames(2, 2)}, lengths={"audio": np.array([3])})
    assert list(tmp_path.iterdir()) == []


def test_repeated_ids_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"utterance_id": ["a", "a"]})
    with pytest.raises(InputError, match="my source, row 1: utterance 'a' stands already in row 0"):
        FeatureStoreWriter(tmp_path / "store", table, ("audio",), name="mine", source="my source")
    assert list(tmp_path.iterdir()) == []
