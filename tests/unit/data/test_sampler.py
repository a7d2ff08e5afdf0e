from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmarr_lightning.data.sampler import LengthBucketBatchSampler
from cmarr_lightning.errors import InputError


def lengths_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 300, count)


def sampler_of(count: int, batch_size: int, *, epoch: int = 0, **options) -> LengthBucketBatchSampler:
    sampler = LengthBucketBatchSampler(1000 + np.arange(count), lengths_of(count), batch_size, **options)
    sampler.set_epoch(epoch)
    return sampler


@given(count=st.integers(2, 300), batch_size=st.integers(2, 40), epoch=st.integers(0, 50), seed=st.integers(0, 9))
def test_training_uses_every_row_at_most_once_in_full_batches(count, batch_size, epoch, seed):
    if count < batch_size:
        return
    sampler = sampler_of(count, batch_size, epoch=epoch, training=True, seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) == count // batch_size
    assert all(batch.rows.shape == (batch_size,) and batch.epoch == epoch for batch in batches)
    assert not any(batch.repeated.any() for batch in batches)
    rows = np.concatenate([batch.rows for batch in batches])
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(range(1000, 1000 + count))


@given(count=st.integers(1, 200), batch_size=st.integers(1, 40), world_size=st.integers(1, 5))
def test_evaluation_scores_every_row_once_and_all_processes_work_equally_long(count, batch_size, world_size):
    ranks = [
        list(sampler_of(count, batch_size, training=False, world_size=world_size, rank=rank))
        for rank in range(world_size)
    ]
    sizes = [[len(batch.rows) for batch in batches] for batches in ranks]
    assert all(size == sizes[0] for size in sizes)
    assert max(sizes[0]) <= batch_size
    scored = np.concatenate([batch.rows[~batch.repeated] for batches in ranks for batch in batches])
    assert sorted(scored.tolist()) == list(range(1000, 1000 + count))
    assert sum(int(batch.repeated.sum()) for batches in ranks for batch in batches) < world_size


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [203, 192])
def test_processes_together_see_what_one_sees_with_a_larger_batch(training, count):
    one = list(sampler_of(count, 32, training=training, epoch=3))
    ranks = [list(sampler_of(count, 16, training=training, epoch=3, world_size=2, rank=r)) for r in range(2)]
    assert len(one) == len(ranks[0]) == len(ranks[1])
    for whole, *parts in zip(one, *ranks, strict=True):
        together = np.concatenate([part.rows[~part.repeated] for part in parts])
        assert sorted(together.tolist()) == sorted(whole.rows.tolist())


def test_an_epoch_can_be_repeated_and_the_next_one_differs():
    first, again, following, reseeded = (
        np.concatenate([batch.rows for batch in sampler_of(100, 10, training=True, epoch=epoch, seed=seed)])
        for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != following).any()
    assert (first != reseeded).any()


def test_batches_hold_similar_lengths_in_random_order():
    lengths = lengths_of(3200)
    batches = [batch.rows - 1000 for batch in sampler_of(3200, 32, training=True)]
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert padded < 1.2 * lengths.sum()  # 2 times without grouping
    longest = np.array([lengths[rows].max() for rows in batches])
    assert (np.diff(longest) < 0).sum() > 30  # 6 if the batches of each of the 7 chunks came in order


def test_rows_that_are_left_out_vary_and_are_not_the_longest():
    lengths = lengths_of(100)
    left_out = [
        set(range(1000, 1100)) - {row for b in sampler_of(100, 40, training=True, epoch=e) for row in b.rows.tolist()}
        for e in range(60)
    ]
    assert set.union(*left_out) == set(range(1000, 1100))
    mean = np.mean([lengths[row - 1000] for rows in left_out for row in rows])
    assert abs(mean - lengths.mean()) < 15


def test_vectors_are_simply_shuffled():
    rows = np.arange(512)
    sampler = LengthBucketBatchSampler(rows, np.ones(512, dtype=np.int64), 8, training=True)
    order = np.concatenate([batch.rows for batch in sampler])
    assert abs(np.corrcoef(order, rows)[0, 1]) < 0.15
    assert np.mean([np.ptp(batch.rows) for batch in sampler]) > 300  # 399 expected of 8 uniform draws


def test_evaluation_comes_in_the_order_of_length():
    rows = np.concatenate([batch.rows for batch in sampler_of(50, 8, training=False)])
    assert (np.diff(lengths_of(50)[rows - 1000]) >= 0).all()


@pytest.mark.parametrize(("batch_size", "world_size"), [(11, 1), (6, 2)])
def test_fewer_rows_than_a_batch_are_an_error(batch_size, world_size):
    with pytest.raises(InputError, match=r"10 training utterances do not fill one batch.*smaller `batch_size`"):
        sampler_of(10, batch_size, training=True, world_size=world_size)
