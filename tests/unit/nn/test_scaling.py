from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmarr_lightning.nn.scaling import FeatureScaler


@pytest.fixture
def scaler() -> FeatureScaler:
    """Two columns: mean 1 and 10, standard deviation 2 and 5, limits [-3, 5] and [0, 20]."""
    scaler = FeatureScaler(2)
    scaler.fit(
        mean=torch.tensor([1.0, 10.0]),
        std=torch.tensor([2.0, 5.0]),
        low=torch.tensor([-3.0, 0.0]),
        high=torch.tensor([5.0, 20.0]),
    )
    return scaler


def test_columns_are_standardised(scaler):
    assert scaler(torch.tensor([[3.0, 5.0], [1.0, 10.0]])).tolist() == [[1, -1], [0, 0]]


def test_extreme_values_are_clipped_before_they_are_scaled(scaler):
    features = torch.tensor([[100.0, -100.0], [torch.inf, -torch.inf]])
    assert scaler(features).tolist() == [[2, -2], [2, -2]]


def test_a_missing_value_becomes_the_training_mean_and_leaves_the_others_alone(scaler):
    assert scaler(torch.tensor([[torch.nan, 5.0]])).tolist() == [[0, -1]]


@pytest.mark.parametrize("shape", [(2,), (4, 2), (3, 4, 2), (0, 2)])
def test_any_number_of_leading_dimensions(scaler, shape):
    features = torch.randn(shape)
    scaled = scaler(features)
    assert scaled.shape == shape
    torch.testing.assert_close(scaled.view(-1, 2), scaler(features.view(-1, 2)))


def test_before_the_fit_numbers_pass_unchanged():
    features = torch.tensor([[0.5, -1e30, torch.inf, -torch.inf]])
    assert torch.equal(FeatureScaler(4)(features), features)


def test_statistics_travel_in_the_state_dict_and_are_not_trained(scaler):
    loaded = FeatureScaler(2)
    loaded.load_state_dict(scaler.state_dict())
    features = 20 * torch.randn(50, 2)
    assert torch.equal(loaded(features), scaler(features))
    assert list(scaler.parameters()) == []


def test_fit_takes_a_copy():
    scaler, mean = FeatureScaler(1), torch.zeros(1)
    scaler.fit(mean, torch.ones(1), -torch.ones(1), torch.ones(1))
    mean += 5
    assert scaler(torch.ones(1)).item() == 1


def test_statistics_of_another_width_are_refused(scaler):
    with pytest.raises(RuntimeError, match="size"):
        scaler.fit(*(torch.ones(3) for _ in range(4)))


@settings(max_examples=50, deadline=None)
@given(
    values=hnp.arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6) | st.just(np.nan)),
    mean=hnp.arrays(np.float64, 3, elements=st.floats(-100, 100)),
    std=hnp.arrays(np.float64, 3, elements=st.floats(0.01, 100)),
    low=hnp.arrays(np.float64, 3, elements=st.floats(-1e3, 0)),
    high=hnp.arrays(np.float64, 3, elements=st.floats(0, 1e3)),
)
def test_result_is_that_of_numpy(values, mean, std, low, high):
    scaler = FeatureScaler(3).double()
    scaler.fit(*map(torch.from_numpy, (mean, std, low, high)))
    expected = np.where(np.isnan(values), 0, (np.clip(values, low, high) - mean) / std)
    np.testing.assert_allclose(scaler(torch.from_numpy(values)).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_the_input_is_left_as_it_was_and_gets_the_gradient_of_its_unit(scaler):
    features = torch.tensor([[3.0, 5.0], [100.0, torch.nan]], requires_grad=True)
    before = features.detach().clone()
    scaler(features).sum().backward()
    torch.testing.assert_close(features.detach(), before, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(features.grad, torch.tensor([[0.5, 0.2], [0, 0]]))
