from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cmarr_lightning.losses.refinement import supervised_contrastive


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def unit_points(count: int, dim: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(count, dim, dtype=dtype), dim=-1)


def slow_supervised_contrastive(points: Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al. with loops and Python's numbers; the mean over the anchors with positives."""
    anchors = []
    for i, label in enumerate(labels):
        similarity = [sum(float(a) * float(b) for a, b in zip(points[i], q, strict=True)) for q in points]
        positives = [j for j, other in enumerate(labels) if j != i and other == label]
        everything = sum(math.exp(similarity[k] / temperature) for k in range(len(labels)) if k != i)
        if positives:
            terms = [math.log(math.exp(similarity[j] / temperature) / everything) for j in positives]
            anchors.append(-sum(terms) / len(positives))
    return sum(anchors) / len(anchors) if anchors else 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.sampled_from([0.1, 0.5]), st.integers(0, 99))
def test_loss_is_that_of_the_loop(labels, temperature, seed):
    torch.manual_seed(seed)
    points = unit_points(len(labels))
    found = supervised_contrastive(points, torch.tensor(labels), temperature)
    assert found.item() == pytest.approx(slow_supervised_contrastive(points, labels, temperature), rel=1e-9)


def test_points_without_a_label_are_left_out():
    points, labels = unit_points(7).requires_grad_(), torch.tensor([0, -1, 1, 0, -1, 1, 1])
    kept = labels >= 0
    loss = supervised_contrastive(points, labels)
    torch.testing.assert_close(loss, supervised_contrastive(points[kept], labels[kept]))
    loss.backward()
    assert (points.grad[~kept] == 0).all()
    assert (points.grad[kept] != 0).any(dim=1).all()


@pytest.mark.parametrize("labels", [[0, 1, 2], [0], [], [-1, -1], [2, -1]])
def test_without_a_positive_pair_loss_and_gradient_are_zero(labels):
    points = unit_points(len(labels)).requires_grad_()
    loss = supervised_contrastive(points, torch.tensor(labels, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert (points.grad == 0).all()


def test_anchors_without_positives_push_but_do_not_count():
    points, labels = unit_points(3), torch.tensor([0, 0, 1])
    pair = slow_supervised_contrastive(points, labels.tolist(), 0.1)
    assert supervised_contrastive(points, labels).item() == pytest.approx(pair)
    assert pair > supervised_contrastive(points[:2], labels[:2]).item() == 0


def test_separated_classes_cost_less_than_mixed_ones():
    corners = torch.eye(2, dtype=torch.float64).repeat_interleave(4, dim=0)
    apart = supervised_contrastive(corners, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    mixed = supervised_contrastive(corners, torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]))
    assert apart.item() == pytest.approx(math.log(3), abs=1e-3)  # three positives share the softmax
    assert mixed > apart + 1


def test_loss_has_the_gradient_of_its_value():
    labels = torch.tensor([0, 1, 0, 1, 2])
    points = unit_points(5, dim=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: supervised_contrastive(q, labels, 0.5), (points,))


def test_small_temperatures_do_not_overflow():
    points = unit_points(6, dtype=torch.float32).requires_grad_()
    loss = supervised_contrastive(points, torch.tensor([0, 0, 1, 1, 2, 2]), temperature=1e-3)
    loss.backward()
    assert loss.isfinite()
    assert points.grad.isfinite().all()


def test_autocast_does_not_narrow_the_loss():
    points, labels = unit_points(8, dtype=torch.float32), torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    expected = supervised_contrastive(points, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = supervised_contrastive(points, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
