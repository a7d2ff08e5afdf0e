from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.data import scaling
from cmarr_lightning.data.scaling import compute_statistics
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError


def frames_of(store: FeatureStore, modality: str, rows: list[int]) -> np.ndarray:
    return np.concatenate([store.get(row, modality) for row in rows]).astype(np.float64)


def vectors(columns: np.ndarray) -> dict[str, list[np.ndarray]]:
    return {"x": list(np.asarray(columns, dtype=np.float32))}


@pytest.mark.parametrize("modality", ["audio", "video", "text"])
def test_statistics_equal_those_of_numpy_over_the_frames_of_the_rows(corpus, modality):
    rows = [3, 50, 9, 27, 71, 12]
    frames = frames_of(corpus, modality, rows)
    low, high = np.quantile(frames, [0.1, 0.9], axis=0)
    clipped = np.clip(frames, low, high)
    found = compute_statistics(corpus, modality, np.array(rows), clip_quantile=0.1)
    np.testing.assert_allclose(found.low, low, rtol=1e-6)
    np.testing.assert_allclose(found.high, high, rtol=1e-6)
    np.testing.assert_allclose(found.mean, clipped.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std, clipped.std(axis=0), rtol=1e-5)
    assert all(getattr(found, name).dtype == np.float32 for name in ("mean", "std", "low", "high"))


def test_other_rows_change_nothing(make_store, tmp_path):
    random = np.random.default_rng(0)
    kept, one, two = random.normal(size=(10, 3)), random.normal(size=(5, 3)), 1e6 * random.normal(size=(5, 3))
    rows = np.arange(10)
    first, second = (
        compute_statistics(make_store(vectors(np.vstack([kept, o])), folder=tmp_path / name), "x", rows)
        for name, o in (("one", one), ("two", two))
    )
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.std, second.std)


def test_a_large_offset_does_not_drown_the_spread(make_store):
    values = 1e5 + np.random.default_rng(0).normal(size=(3000, 1))
    found = compute_statistics(make_store(vectors(values)), "x", np.arange(3000), clip_quantile=0)
    np.testing.assert_allclose(found.std, values.astype(np.float32).std(axis=0, dtype=np.float64), rtol=1e-3)


def test_constant_columns_get_unit_spread(make_store):
    values = np.stack([np.full(50, 0.1), np.zeros(50), np.arange(50)], axis=1)
    found = compute_statistics(make_store(vectors(values)), "x", np.arange(50))
    assert found.std[:2].tolist() == [1, 1]
    assert found.std[2] > 10
    np.testing.assert_allclose(found.mean[:2], [0.1, 0], rtol=1e-6)


def test_nan_is_left_out_and_an_unknown_column_is_neutral(make_store):
    values = np.array([[1, np.nan, 7], [np.nan, np.nan, 8], [4, np.nan, 9], [1, np.nan, 9], [100, 5, 9]])
    found = compute_statistics(make_store(vectors(values)), "x", np.arange(4), clip_quantile=0)
    np.testing.assert_allclose(found.mean, [2, 0, 8.25], rtol=1e-6)
    np.testing.assert_allclose(found.std, [np.sqrt(2), 1, np.sqrt(0.6875)], rtol=1e-6)
    np.testing.assert_allclose(found.high, [4, 0, 9])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_inf_names_the_utterance(make_store, value):
    store = make_store({"x": [np.full((1 + i, 2), i, dtype=np.float32) for i in range(6)]})
    values = np.lib.format.open_memmap(store.path / "x.values.npy", mode="r+")
    values[store.offsets("x")[4] + 2, 1] = value
    values.flush()
    with pytest.raises(InputError, match=r"utterance 'u0004' has Inf in x"):
        compute_statistics(store, "x", np.arange(6))
    compute_statistics(store, "x", np.array([0, 1, 2, 3, 5]))


def test_rows_that_all_lack_the_modality_are_an_error(corpus):
    with pytest.raises(InputError, match="no training utterance has audio"):
        compute_statistics(corpus, "audio", np.array([9, 19]))


def test_reading_in_pieces_and_a_subsample_for_the_quantiles_change_little(corpus, monkeypatch):
    rows = np.arange(96)
    whole = compute_statistics(corpus, "audio", rows)
    monkeypatch.setattr(scaling, "_CHUNK_VALUES", 21)
    pieces = compute_statistics(corpus, "audio", rows)
    np.testing.assert_allclose(pieces.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(pieces.std, whole.std, rtol=1e-5)
    monkeypatch.setattr(scaling, "_QUANTILE_FRAMES", 400)
    fewer = compute_statistics(corpus, "audio", rows)
    np.testing.assert_allclose(fewer.low, whole.low, atol=0.02)
    np.testing.assert_allclose(fewer.mean, whole.mean, rtol=1e-2)
