from __future__ import annotations

import pytest
import torch

from cmarr_lightning.losses.reconstruction import masked_mean, negative_log_likelihood, reconstruction_error


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_masked_mean_by_hand():
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    assert masked_mean(values, torch.tensor([[True, False], [True, True]])).item() == pytest.approx(13 / 3)
    assert masked_mean(values, torch.ones(2, 2, dtype=torch.bool)).item() == 3.75


def test_masked_mean_reads_nothing_but_what_is_marked():
    values = torch.tensor([3.0, torch.nan, torch.inf], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, False]))
    mean.backward()
    assert mean.item() == 3
    assert values.grad.tolist() == [1, 0, 0]


def test_masked_mean_of_nothing_is_zero_with_a_zero_gradient():
    values = torch.randn(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert values.grad.tolist() == [0, 0, 0]


def test_likelihood_is_per_dimension_and_over_what_is_observed():
    log_prob = torch.tensor([[-8.0, -100.0], [-16.0, 4.0]])
    observed = torch.tensor([[True, False], [True, True]])
    assert negative_log_likelihood(log_prob, 4, observed).item() == pytest.approx((2 + 4 - 1) / 3)


def test_likelihood_is_not_clipped():
    """A density may exceed 1; clipped at 0 its gradient would vanish there."""
    log_prob = torch.tensor([[20.0]], requires_grad=True)
    loss = negative_log_likelihood(log_prob, 4, torch.ones(1, 1, dtype=torch.bool))
    loss.backward()
    assert loss.item() == -5
    assert log_prob.grad.item() == -0.25


def test_reconstruction_error_is_that_of_the_loop():
    points, target = torch.randn(4, 7, 3, 5), torch.randn(4, 3, 5)
    mask = torch.rand(4, 7, 3) < 0.4
    errors = [
        sum((points[b, k, m, e] - target[b, m, e]).item() ** 2 for e in range(5)) / 5
        for b in range(4)
        for k in range(7)
        for m in range(3)
        if mask[b, k, m]
    ]
    assert reconstruction_error(points, target, mask).item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_reconstruction_error_moves_the_reconstruction_and_not_its_target():
    recovered, target = torch.randn(2, 3, 2, 4, requires_grad=True), torch.randn(2, 2, 4, requires_grad=True)
    mask = torch.zeros(2, 3, 2, dtype=torch.bool)
    mask[0, 1, 0] = mask[1, 2, 1] = True
    reconstruction_error(recovered, target, mask).backward()
    assert target.grad is None
    expected = torch.where(mask.unsqueeze(-1), recovered - target.unsqueeze(1), 0.0) * 2 / (4 * 2)
    torch.testing.assert_close(recovered.grad, expected.detach())


def test_bfloat16_points_are_compared_in_float32():
    points, target = torch.randn(4, 7, 3, 5).bfloat16(), torch.randn(4, 3, 5).bfloat16()
    mask = torch.ones(4, 7, 3, dtype=torch.bool)
    found = reconstruction_error(points, target, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reconstruction_error(points.float(), target.float(), mask))


def test_nothing_recovered_is_no_error():
    loss = reconstruction_error(torch.randn(2, 1, 2, 4), torch.randn(2, 2, 4), torch.zeros(2, 1, 2, dtype=torch.bool))
    assert loss.item() == 0
