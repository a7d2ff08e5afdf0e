"""Central moment discrepancy against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from cmarr_lightning.losses.moment_discrepancy import central_moment_discrepancy, pairwise_discrepancy


def test_two_points_by_hand():
    # x = {0, 2}: mean 1, moments 1, 0, 1, 0; y = {0, 4}: mean 2, moments 4, 0, 16, 0
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    expected = {1: 1.0, 2: 1 + 3, 3: 1 + 3, 4: 1 + 3 + 15, 5: 1 + 3 + 15}
    for order, value in expected.items():
        assert central_moment_discrepancy(x, y, order).item() == pytest.approx(value)


def test_the_coordinates_enter_by_their_euclidean_norm():
    x = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    y = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    assert central_moment_discrepancy(x, y).item() == pytest.approx(math.sqrt(2) * 19)


def test_skewness_counts_from_the_third_moment_on():
    # x = {-1, -1, 2}: mean 0, c2 = 2, c3 = 2, c4 = 6, c5 = 10; y = -x has odd moments of the other sign
    x = torch.tensor([[-1.0], [-1.0], [2.0]])
    assert central_moment_discrepancy(x, -x, 2).item() == pytest.approx(0)
    assert central_moment_discrepancy(x, -x, 5).item() == pytest.approx(4 + 20)


def test_equal_sets_are_at_zero_with_a_finite_gradient():
    x = torch.randn(5, 3, requires_grad=True)
    loss = central_moment_discrepancy(x, x.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_pairs_are_averaged_and_what_is_absent_is_not_read():
    embeddings = torch.randn(6, 3, 4)
    observed = torch.ones(6, 3, dtype=torch.bool)
    observed[0, 0] = observed[1, 2] = False
    rows = [embeddings[observed[:, i], i] for i in range(3)]
    pairs = [central_moment_discrepancy(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = torch.stack(pairs).mean()
    torch.testing.assert_close(pairwise_discrepancy(embeddings, observed), expected)
    embeddings[0, 0] = 1e9
    torch.testing.assert_close(pairwise_discrepancy(embeddings, observed), expected)


def test_a_pair_that_nobody_has_counts_as_zero():
    observed = torch.tensor([[True, False]] * 3)
    embeddings = torch.randn(3, 2, 4, requires_grad=True)
    loss = pairwise_discrepancy(embeddings, observed)
    assert loss.item() == 0
    loss.backward()
