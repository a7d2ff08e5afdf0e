"""Errors to the teacher and the divergence of the posterior."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cmarr_lightning.losses.imagination import gaussian_kl, teacher_error


def test_the_error_is_a_mean_over_dimensions_and_known_targets():
    imagined, target = torch.zeros(2, 1, 2, 4), torch.ones(2, 1, 2, 4)
    target[0, 0, 1] = 3.0
    target[1] = torch.nan
    known = torch.tensor([[[True, True]], [[False, False]]])
    assert teacher_error(imagined, target, known).item() == pytest.approx((1 + 9) / 2)


def test_it_equals_the_mean_squared_error_where_all_is_known():
    imagined, target = torch.randn(2, 3, 4, 5, 6)
    known = torch.ones(3, 4, 5, dtype=torch.bool)
    torch.testing.assert_close(teacher_error(imagined, target, known), torch.nn.functional.mse_loss(imagined, target))


def test_no_gradient_reaches_the_teacher():
    target = torch.randn(1, 1, 1, 3, requires_grad=True)
    imagined = torch.randn(1, 1, 1, 3, requires_grad=True)
    teacher_error(imagined, target, torch.ones(1, 1, 1, dtype=torch.bool)).backward()
    assert target.grad is None
    assert imagined.grad is not None


def test_the_divergence_by_hand_and_by_torch():
    mean, log_variance = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, math.log(4.0)]]])
    usable = torch.ones(1, 1, dtype=torch.bool)
    # 0.5 * 1; 0.5 * (4 - 1 - ln 4)
    by_hand = (0.5 + 0.5 * (3 - math.log(4.0))) / 2
    assert gaussian_kl(mean, log_variance, usable).item() == pytest.approx(by_hand)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(1), torch.ones(1))).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance, usable), expected)


def test_the_released_scale_sums_over_rows_and_dimensions():
    mean, log_variance = torch.randn(2, 5, 3, 7)
    usable = torch.ones(5, 3, dtype=torch.bool)
    usable[0, 1] = False
    few, many = (gaussian_kl(mean, log_variance, usable, scale) for scale in ("mean", "released"))
    torch.testing.assert_close(many, few * 14 * 7)
