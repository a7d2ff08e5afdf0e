from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cmarr_lightning.nn.uncertainty import Gaussian, UncertaintyModelingComponent


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def umc() -> UncertaintyModelingComponent:
    return UncertaintyModelingComponent(16, num_heads=2).eval()


@pytest.fixture
def wild() -> UncertaintyModelingComponent:
    """A component whose weights are far from their start, so that nothing is near zero by luck."""
    umc = UncertaintyModelingComponent(16, num_heads=2).eval()
    for parameter in umc.parameters():
        nn.init.normal_(parameter, std=0.7)
    return umc


def no_padding(tokens: Tensor) -> Tensor:
    return torch.zeros(tokens.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_frames_become_one_gaussian(umc, length):
    tokens = torch.randn(4, length, 16)
    gaussian = umc(tokens, no_padding(tokens))
    assert gaussian.mean.shape == gaussian.log_std.shape == (4, 16)
    assert gaussian.mean.isfinite().all()
    assert gaussian.log_std.isfinite().all()


@pytest.mark.parametrize("length", [1, 9])
def test_the_mean_has_a_fixed_scale(wild, length):
    """Else InfoNCE could be lowered by inflating the means."""
    tokens = 3 * torch.randn(4, length, 16)
    mean = wild(tokens, no_padding(tokens)).mean
    torch.testing.assert_close(mean.mean(dim=-1), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean.var(dim=-1, correction=0), torch.ones(4), rtol=0, atol=1e-3)


def test_log_std_stays_within_its_bounds(wild):
    tokens = 100 * torch.randn(200, 3, 16)
    for parameter in wild.parameters():
        nn.init.normal_(parameter, std=2)
    log_std = wild(tokens, no_padding(tokens)).log_std
    assert log_std.min() == -3
    assert log_std.max() == 1


def test_bounds_of_log_std_can_be_set():
    umc = UncertaintyModelingComponent(16, num_heads=2, log_std_range=(-0.5, 0.25))
    for parameter in umc.parameters():
        nn.init.normal_(parameter, std=2)
    tokens = torch.randn(200, 3, 16)
    log_std = umc(tokens, no_padding(tokens)).log_std
    assert log_std.min() == -0.5
    assert log_std.max() == 0.25


def test_the_start_is_near_the_initial_deviation_but_not_at_it():
    """With all deviations equal the gradient of the 2-Wasserstein distance in them is exactly zero."""
    umc = UncertaintyModelingComponent(128, initial_std=0.5).eval()
    tokens = torch.randn(8, 5, 128)
    log_std = umc(tokens, no_padding(tokens)).log_std
    assert (log_std - math.log(0.5)).abs().max() < 0.8
    assert log_std.std(dim=0).min() > 0
    assert log_std.std() > 1e-4


def test_a_masked_frame_has_no_influence(wild):
    tokens, mask = torch.randn(3, 8, 16), torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 5:] = mask[1, 1:] = mask[2, 3] = True
    expected = wild(tokens, mask)
    other = torch.where(mask.unsqueeze(-1), 1e3 * torch.randn(3, 8, 16), tokens)
    for before, after in zip(expected, wild(other, mask), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    moved = wild(other, torch.zeros_like(mask))
    assert all((a - b).abs().max() > 0.01 for a, b in zip(expected, moved, strict=True)), "the frames matter unmasked"


def test_a_masked_frame_gets_no_gradient(wild):
    tokens, mask = torch.randn(2, 6, 16, requires_grad=True), torch.zeros(2, 6, dtype=torch.bool)
    mask[:, 4:] = True
    gaussian = wild(tokens, mask)
    (gaussian.mean.pow(3).sum() + gaussian.log_std.sum()).backward()
    assert (tokens.grad[mask] == 0).all()
    assert (tokens.grad[~mask] != 0).any(dim=-1).all()


@pytest.mark.parametrize("length", [1, 4])
def test_more_padding_changes_nothing(wild, length):
    tokens = torch.randn(3, length, 16)
    expected = wild(tokens, no_padding(tokens))
    mask = torch.zeros(3, length + 5, dtype=torch.bool)
    mask[:, length:] = True
    for before, after in zip(expected, wild(torch.cat([tokens, torch.zeros(3, 5, 16)], 1), mask), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_rows_do_not_see_each_other(wild):
    tokens, mask = torch.randn(5, 6, 16), torch.rand(5, 6) < 0.4
    mask[:, 0] = False
    for whole, alone in zip(wild(tokens, mask), wild(tokens[2:3], mask[2:3]), strict=True):
        torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient_from_a_sample():
    umc, tokens = UncertaintyModelingComponent(16, num_heads=2), torch.randn(6, 7, 16)
    umc(tokens, no_padding(tokens)).sample().pow(3).sum().backward()
    dead = [name for name, p in umc.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_dropout_is_for_training_only():
    umc, tokens = UncertaintyModelingComponent(16, num_heads=2, dropout=0.5), torch.randn(3, 7, 16)
    assert not torch.equal(umc(tokens, no_padding(tokens)).mean, umc(tokens, no_padding(tokens)).mean)
    umc.eval()
    assert torch.equal(umc(tokens, no_padding(tokens)).mean, umc(tokens, no_padding(tokens)).mean)


def test_samples_have_the_mean_and_deviation_of_the_gaussian():
    mean, log_std = torch.tensor([0.0, -2.0, 5.0]), torch.tensor([0.0, -1.0, 1.0])
    samples = Gaussian(mean.expand(20_000, 3), log_std.expand(20_000, 3)).sample()
    torch.testing.assert_close(samples.mean(dim=0), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(samples.std(dim=0), log_std.exp(), rtol=0.03, atol=0)


def test_a_sample_sends_its_gradient_to_both_parameters():
    mean, log_std = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    sample = Gaussian(mean, log_std).sample()
    sample.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(4, 3))
    torch.testing.assert_close(log_std.grad, (sample - mean).detach())  # sigma * epsilon


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="embed_dim 16 is not divisible by 2 \\* num_heads = 6"):
        UncertaintyModelingComponent(16, num_heads=3)
