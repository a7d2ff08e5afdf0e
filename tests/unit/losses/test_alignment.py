from __future__ import annotations

import math
from itertools import combinations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cmarr_lightning.losses.alignment import AlignmentLoss, wasserstein_info_nce, wasserstein_squared

MEANS = hnp.arrays(np.float64, (3, 4), elements=st.floats(-10, 10))
STDS = hnp.arrays(np.float64, (3, 4), elements=st.floats(0.05, 3))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def gaussians(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype).mul(0.3).exp()


def square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T


def wasserstein_of_covariances(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """The formula for any pair of Gaussians: |a - b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)."""
    root = square_root(cov_a)
    return (mean_a - mean_b).square().sum() + (cov_a + cov_b - 2 * square_root(root @ cov_b @ root)).trace()


def slow_info_nce(mean_a: Tensor, std_a: Tensor, mean_b: Tensor, std_b: Tensor, temperature: float) -> float:
    """The equations with loops and Python's numbers."""
    count, dim = mean_a.shape

    def similarity(i: int, j: int) -> float:
        distance = sum(
            float(mean_a[i, e] - mean_b[j, e]) ** 2 + float(std_a[i, e] - std_b[j, e]) ** 2 for e in range(dim)
        )
        return -distance / (2 * dim * temperature)

    loss = 0.0
    for i in range(count):
        row = sum(math.exp(similarity(i, j)) for j in range(count))
        column = sum(math.exp(similarity(j, i)) for j in range(count))
        loss -= 0.5 * (math.log(math.exp(similarity(i, i)) / row) + math.log(math.exp(similarity(i, i)) / column))
    return loss / count


@settings(max_examples=30, deadline=None)
@given(MEANS, STDS, MEANS, STDS)
def test_distance_is_that_of_the_matrix_formula(mean_a, std_a, mean_b, std_b):
    a, b = (torch.from_numpy(mean_a), torch.from_numpy(std_a)), (torch.from_numpy(mean_b), torch.from_numpy(std_b))
    found = wasserstein_squared(*a, *b)
    for i in range(3):
        for j in range(3):
            expected = wasserstein_of_covariances(a[0][i], a[1][i].square().diag(), b[0][j], b[1][j].square().diag())
            torch.testing.assert_close(found[i, j], expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(MEANS, STDS, MEANS, STDS)
def test_distance_is_symmetric_never_negative_and_zero_to_itself(mean_a, std_a, mean_b, std_b):
    a, b = (torch.from_numpy(mean_a), torch.from_numpy(std_a)), (torch.from_numpy(mean_b), torch.from_numpy(std_b))
    distance = wasserstein_squared(*a, *b)
    assert (distance >= 0).all()
    torch.testing.assert_close(distance, wasserstein_squared(*b, *a).T)
    assert wasserstein_squared(*a, *a).diagonal().max() < 1e-10


def test_float32_distance_is_never_negative_although_it_cancels():
    mean, std = gaussians(100, 128, dtype=torch.float32)
    distance = wasserstein_squared(10 * mean, std, 10 * mean, std)
    assert (distance >= 0).all()
    assert distance.diagonal().max() < 1e-5 * distance.mean()


def test_two_sets_may_differ_in_size():
    assert wasserstein_squared(*gaussians(3, 5), *gaussians(7, 5)).shape == (3, 7)


def test_autocast_does_not_narrow_the_distance():
    a, b = gaussians(8, 16, dtype=torch.float32), gaussians(8, 16, dtype=torch.float32)
    expected = wasserstein_squared(*a, *b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = wasserstein_squared(*a, *b)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert wasserstein_squared(*(part.bfloat16() for part in (*a, *b))).dtype == torch.float32


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_info_nce_is_that_of_the_loop(count, temperature):
    a, b = gaussians(count, 6), gaussians(count, 6)
    found = wasserstein_info_nce(*a, *b, temperature)
    assert found.item() == pytest.approx(slow_info_nce(*a, *b, temperature), rel=1e-10)


def test_info_nce_does_not_care_which_modality_comes_first_or_in_which_order_the_rows_stand():
    a, b = gaussians(5, 6), gaussians(5, 6)
    order = torch.tensor([3, 1, 4, 0, 2])
    expected = wasserstein_info_nce(*a, *b, 0.1)
    torch.testing.assert_close(wasserstein_info_nce(*b, *a, 0.1), expected)
    shuffled = wasserstein_info_nce(*(part[order] for part in (*a, *b)), 0.1)
    torch.testing.assert_close(shuffled, expected)


def test_info_nce_is_log_n_without_information_and_zero_when_all_is_aligned():
    mean, std = gaussians(4, 6)
    same = wasserstein_info_nce(mean[:1].expand(4, -1), std, mean[:1].expand(4, -1), std[:1].expand(4, -1), 0.1)
    assert same.item() > math.log(4) - 0.2
    nothing = torch.zeros(4, 6)
    assert wasserstein_info_nce(nothing, nothing, nothing, nothing, 0.1).item() == pytest.approx(math.log(4))
    assert wasserstein_info_nce(mean, std, mean, std, 1e-3).item() == pytest.approx(0, abs=1e-8)


def test_info_nce_has_the_gradient_of_its_value():
    inputs = [part.requires_grad_() for part in (*gaussians(3, 2), *gaussians(3, 2))]
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(wasserstein_info_nce, (*inputs, temperature))


def test_alignment_is_the_mean_over_the_pairs_of_the_rows_that_have_both():
    mean, std = gaussians(8, 3, 6)
    observed = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]])
    loss = AlignmentLoss(temperature=0.2).double()
    pairs = []
    for m, n in combinations(range(3), 2):
        rows = [b for b in range(8) if observed[b, m] and observed[b, n]]
        assert 2 <= len(rows) < 8
        pairs.append(slow_info_nce(mean[rows, m], std[rows, m], mean[rows, n], std[rows, n], 0.2))
    assert loss(mean, std, observed.bool()).item() == pytest.approx(sum(pairs) / 3, rel=1e-6)


def test_alignment_never_reads_what_is_not_observed():
    mean, std = gaussians(6, 2, 4)
    observed = torch.ones(6, 2, dtype=torch.bool)
    observed[1, 0] = observed[4, 1] = False
    loss = AlignmentLoss().double()
    rows = observed.all(dim=1)
    expected = loss(mean[rows], std[rows], observed[rows])
    other = mean.masked_fill(~observed.unsqueeze(-1), 1e6).requires_grad_()
    found = loss(other, std, observed)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert (other.grad[~rows] == 0).all()
    assert (other.grad[rows] != 0).any(dim=-1).all()


def test_a_pair_with_fewer_than_two_rows_contributes_zero():
    mean, std = gaussians(4, 3, 6)
    observed = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0]]).bool()
    loss = AlignmentLoss(temperature=0.2).double()
    only = slow_info_nce(mean[:3, 0], std[:3, 0], mean[:3, 1], std[:3, 1], 0.2)
    assert loss(mean, std, observed).item() == pytest.approx(only / 3, rel=1e-6)


@pytest.mark.parametrize("count", [1, 5])
def test_without_any_pair_the_loss_is_zero_and_every_input_keeps_a_zero_gradient(count):
    mean, std = (part.requires_grad_() for part in gaussians(count, 2, 4, dtype=torch.float32))
    observed = torch.zeros(count, 2, dtype=torch.bool)
    observed[:, 0] = observed[0, 1] = True
    loss = AlignmentLoss()
    value = loss(mean, std, observed)
    value.backward()
    assert value.item() == 0
    for tensor in (mean, std, loss.log_temperature):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


def test_temperature_starts_where_it_is_told_and_gets_a_gradient():
    loss = AlignmentLoss(temperature=0.3)
    assert loss.temperature.item() == pytest.approx(0.3)
    mean, std = gaussians(5, 2, 4, dtype=torch.float32)
    loss(mean, std, torch.ones(5, 2, dtype=torch.bool)).backward()
    h = 1e-3
    a, b = (mean[:, 0], std[:, 0]), (mean[:, 1], std[:, 1])
    slope = wasserstein_info_nce(*a, *b, 0.3 * math.exp(h)) - wasserstein_info_nce(*a, *b, 0.3 * math.exp(-h))
    assert loss.log_temperature.grad.item() == pytest.approx(slope.item() / (2 * h), rel=1e-2)


@pytest.mark.parametrize(("theta", "bound"), [(-7.0, 0.01), (2.0, 1.0)])
def test_temperature_stays_within_its_bounds_but_can_leave_them(theta, bound):
    loss = AlignmentLoss()
    torch.nn.init.constant_(loss.log_temperature, theta)
    assert loss.temperature.item() == pytest.approx(bound)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        (loss.temperature - 0.3).square().backward()
        optimizer.step()
    assert 0.02 < loss.temperature.item() < 0.95
