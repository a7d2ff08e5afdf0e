from __future__ import annotations

import pytest
import torch

from cmarr_lightning.nn.encoders import FeatureEncoder, sinusoidal_positions


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("feature_dim", [1, 20])
def test_frames_become_tokens(length, feature_dim):
    tokens = FeatureEncoder(feature_dim, 16)(torch.randn(3, length, feature_dim))
    assert tokens.shape == (3, length, 16)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_the_code_of_a_frame_does_not_depend_on_how_many_follow(length):
    """Otherwise the result would depend on the padding, that is on the batch mates."""
    torch.testing.assert_close(sinusoidal_positions(length, 16), sinusoidal_positions(40, 16)[:length])


def test_positions_differ_and_are_bounded():
    positions = sinusoidal_positions(300, 16)
    assert positions.shape == (300, 16)
    assert positions.abs().max() <= 2
    distance = torch.cdist(positions, positions) + torch.eye(300) * 100
    assert distance.min() > 0.05


def test_equal_frames_at_different_places_are_told_apart():
    encoder = FeatureEncoder(4, 16).eval()
    tokens = encoder(torch.randn(1, 1, 4).expand(1, 6, 4))
    distance = torch.cdist(tokens[0], tokens[0]) + torch.eye(6) * 100
    assert distance.min() > 0.05


@pytest.mark.parametrize("length", [1, 2, 6])
def test_frames_behind_have_no_influence_on_those_before(length):
    encoder, features = FeatureEncoder(4, 16).eval(), torch.randn(3, length, 4)
    expected = encoder(features)
    padded = encoder(torch.cat([features, 1e3 * torch.randn(3, 5, 4)], dim=1))
    torch.testing.assert_close(padded[:, :length], expected, rtol=0, atol=1e-5)


def test_rows_do_not_see_each_other():
    encoder, features = FeatureEncoder(4, 16).eval(), torch.randn(5, 7, 4)
    torch.testing.assert_close(encoder(features)[2:3], encoder(features[2:3]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["dropout", "input_dropout"])
def test_dropout_is_for_training_only(where):
    encoder = FeatureEncoder(4, 16, **{"dropout": 0.0, "input_dropout": 0.0, where: 0.5})
    features = torch.randn(3, 7, 4)
    assert not torch.equal(encoder(features), encoder(features))
    encoder.eval()
    assert torch.equal(encoder(features), encoder(features))


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_dropout_is_a_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        FeatureEncoder(4, 16, input_dropout=p)


@pytest.mark.parametrize("length", [1, 7])
def test_every_parameter_gets_a_gradient(length):
    encoder = FeatureEncoder(4, 16)
    encoder(torch.randn(3, length, 4)).pow(3).sum().backward()
    dead = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
