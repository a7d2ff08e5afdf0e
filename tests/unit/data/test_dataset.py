from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.data.dataset import UtteranceDataset, padding_costs
from cmarr_lightning.data.sampler import BatchRequest, LengthBucketBatchSampler
from cmarr_lightning.data.store import FeatureStore

LABELS = np.arange(96) % 4
MODALITIES = ("text", "audio", "video")


def dataset_of(store: FeatureStore, modalities=MODALITIES, **options) -> UtteranceDataset:
    return UtteranceDataset(store, modalities, LABELS, **options)


def request_of(rows: list[int], epoch: int = 0) -> BatchRequest:
    return BatchRequest(np.array(rows), epoch, np.zeros(len(rows), dtype=bool))


def assert_equal(first: MultimodalBatch, second: MultimodalBatch) -> None:
    for name in ("observed", "drawn", "labels", "rows", "repeated"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    for m in first.features:
        assert torch.equal(first.features[m], second.features[m]), m
        assert torch.equal(first.padding_mask[m], second.padding_mask[m]), m


@given(st.lists(st.integers(0, 95), min_size=1, max_size=20))
def test_a_batch_holds_the_frames_of_every_row_and_nothing_else(corpus, rows):
    batch = dataset_of(corpus)[request_of(rows)]
    assert tuple(batch.features) == MODALITIES
    for column, m in enumerate(MODALITIES):
        features, padding_mask = batch.features[m], batch.padding_mask[m]
        frames = [torch.from_numpy(corpus.get(row, m).astype(np.float32)) for row in rows]
        assert features.shape == (len(rows), max(1, *map(len, frames), 0), corpus.dims[m])
        assert features.dtype == torch.float32
        assert features.is_contiguous()
        for i, expected in enumerate(frames):
            n = len(expected)
            assert torch.equal(features[i, :n], expected)
            assert not features[i, n:].any()
            assert batch.observed[i, column] == (n > 0)
            assert not padding_mask[i, : max(n, 1)].any()
            assert padding_mask[i, max(n, 1) :].all()


def test_labels_rows_and_flags_belong_to_the_rows(corpus):
    request = BatchRequest(np.array([5, 2, 2]), 0, np.array([False, False, True]))
    batch = dataset_of(corpus)[request]
    assert batch.labels.tolist() == [1, 2, 2]
    assert batch.rows.tolist() == [5, 2, 2]
    assert batch.repeated.tolist() == [False, False, True]
    assert len(batch) == 3


def test_nan_is_handed_on_and_whole_batches_may_lack_a_modality(make_store):
    features = {
        "x": [None, None, np.array([[1, np.nan]], dtype=np.float32)],
        "y": [np.ones(2, dtype=np.float32), np.ones(2, dtype=np.float32), None],
    }
    dataset = UtteranceDataset(make_store(features), ("x", "y"), np.zeros(3, dtype=np.int64))
    lacking = dataset[request_of([0, 1])]
    assert lacking.features["x"].tolist() == [[[0, 0]], [[0, 0]]]
    assert lacking.padding_mask["x"].tolist() == [[False], [False]]
    assert lacking.observed.tolist() == [[False, True], [False, True]]
    assert dataset[request_of([2])].features["x"].isnan().tolist() == [[[False, True]]]


def test_conditions_are_drawn_in_training_only_and_change_with_the_epoch(corpus):
    rows = list(range(96))
    evaluated = dataset_of(corpus)[request_of(rows, epoch=1)]
    assert torch.equal(evaluated.drawn, evaluated.observed)
    dataset = dataset_of(corpus, draw="all", seed=4)
    drawn = [dataset[request_of(rows, epoch=epoch)].drawn for epoch in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], dataset_of(corpus, draw="all", seed=5)[request_of(rows)].drawn)
    assert not (drawn[0] & ~evaluated.observed).any()


def test_a_drawn_condition_does_not_depend_on_the_number_of_processes(corpus):
    dataset = dataset_of(corpus, draw="all", seed=1)

    def conditions(batch_size: int, world_size: int) -> dict[int, list[bool]]:
        found: dict[int, list[bool]] = {}
        for rank in range(world_size):
            sampler = LengthBucketBatchSampler(
                np.arange(96), np.ones(96), batch_size, training=True, world_size=world_size, rank=rank
            )
            sampler.set_epoch(2)
            for request in sampler:
                batch = dataset[request]
                found |= dict(zip(batch.rows.tolist(), batch.drawn.tolist(), strict=True))
        return found

    assert conditions(32, 1) == conditions(16, 2) == conditions(8, 4) == conditions(12, 1)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_give_identical_batches(corpus, context):
    dataset = dataset_of(corpus, draw="all")
    sampler = LengthBucketBatchSampler(np.arange(96), padding_costs(corpus, MODALITIES), 16, training=True)
    here = DataLoader(dataset, sampler=sampler, batch_size=None)
    workers = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    drawn = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(here)
        assert len(batches) == len(here) == 6
        for first, second in zip(batches, workers, strict=True):
            assert_equal(first, second)
        drawn.append(torch.cat([batch.drawn for batch in batches]))
    assert not torch.equal(*drawn)


def test_a_pickled_dataset_is_small_and_maps_the_same_files(make_store):
    store = make_store({"x": [np.ones((500, 50), dtype=np.float32)] * 8, "y": [np.ones(3, dtype=np.float32)] * 8})
    dataset = UtteranceDataset(store, ("x", "y"), np.zeros(8, dtype=np.int64))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 5_000  # the features have 800,000 bytes
    copy = pickle.loads(pickled)
    assert isinstance(copy.store.values("x"), np.memmap)
    assert_equal(copy[request_of([1, 2])], dataset[request_of([1, 2])])


def test_costs_count_varying_lengths_and_do_not_sort_by_what_is_missing(make_store):
    def frames(count: int) -> np.ndarray:
        return np.ones((count, 2), dtype=np.float32)

    vector = np.ones(9, dtype=np.float32)
    store = make_store({"x": [frames(1), None, frames(3), frames(5)], "y": [vector, vector, None, vector]})
    assert padding_costs(store, ("x", "y")).tolist() == [2 + 9, 6 + 9, 6 + 9, 10 + 9]
    assert len(set(padding_costs(store, ("y",)).tolist())) == 1
