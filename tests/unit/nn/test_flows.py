from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal

from cmarr_lightning.nn.flows import LatentFlow


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(embed_dim: int = 6, num_steps: int = 4, std: float = 0.4) -> LatentFlow:
    """A flow in float64 that is far from its start."""
    flow = LatentFlow(embed_dim, num_steps, hidden_dim=16)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=std)
    return flow.double()


def at_the_start(embed_dim: int = 6) -> LatentFlow:
    return LatentFlow(embed_dim, hidden_dim=16).double()


def train(flow: LatentFlow, data: Tensor, steps: int, learning_rate: float = 1e-3) -> None:
    optimizer = torch.optim.Adam(flow.parameters(), learning_rate)
    for _ in range(steps):
        loss = -flow.log_prob(data[torch.randint(len(data), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("make", [at_the_start, randomised])
def test_float64_round_trips_in_both_directions(make):
    flow, x = make(), 3 * torch.randn(200, 6, dtype=torch.float64)
    there = flow.from_latent(flow.to_latent(x)[0])[0]
    back = flow.to_latent(flow.from_latent(x)[0])[0]
    assert (there - x).abs().max() < 1e-8
    assert (back - x).abs().max() < 1e-8


@pytest.mark.parametrize("direction", ["to_latent", "from_latent"])
@pytest.mark.parametrize("make", [at_the_start, randomised])
def test_log_determinant_is_that_of_the_jacobian(make, direction):
    run = getattr(make(), direction)
    inputs = torch.randn(4, 6, dtype=torch.float64)
    _, found = run(inputs)
    for row, log_abs_det in zip(inputs, found, strict=True):
        expected = torch.linalg.slogdet(jacobian(lambda x: run(x.unsqueeze(0))[0].squeeze(0), row)).logabsdet
        torch.testing.assert_close(log_abs_det, expected, rtol=0, atol=1e-10)


def test_the_two_log_determinants_cancel():
    flow = randomised()
    z, forward = flow.to_latent(torch.randn(50, 6, dtype=torch.float64))
    _, inverse = flow.from_latent(z)
    assert forward.abs().max() > 0.1
    assert (forward + inverse).abs().max() < 1e-10


def test_the_start_is_a_rotation():
    flow, u = LatentFlow(8), torch.randn(50, 8)
    z, log_abs_det = flow.to_latent(u)
    assert (log_abs_det == 0).all()
    torch.testing.assert_close(z.norm(dim=1), u.norm(dim=1))
    torch.testing.assert_close(z @ z.T, u @ u.T, rtol=1e-4, atol=1e-4)
    assert (z - u).abs().max() > 0.1, "without a rotation the first half of the columns would never change"


def test_equal_seeds_start_as_the_same_map_and_others_do_not():
    u = torch.randn(5, 8)
    first, same, other = LatentFlow(8, seed=3), LatentFlow(8, seed=3), LatentFlow(8, seed=4)
    assert torch.equal(first.to_latent(u)[0], same.to_latent(u)[0])
    assert not torch.allclose(first.to_latent(u)[0], other.to_latent(u)[0])


def test_the_state_of_the_global_generator_does_not_matter_for_the_start():
    maps = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        maps.append(LatentFlow(8))
    u = torch.randn(5, 8)
    assert torch.equal(maps[0].to_latent(u)[0], maps[1].to_latent(u)[0])


def test_every_parameter_is_trained_once_the_zero_layers_have_moved():
    flow, data = LatentFlow(6, hidden_dim=16), torch.randn(64, 6).exp()
    train(flow, data, steps=1)
    flow.zero_grad()
    flow.log_prob(data).mean().backward()
    dead = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_the_inverse_trains_every_parameter_too():
    flow = randomised()
    flow.from_latent(torch.randn(64, 6, dtype=torch.float64))[0].square().mean().backward()
    dead = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_float32_round_trip_survives_training():
    # What the network feeds: normalised means on a curved surface of low dimension, little noise.
    surface = nn.functional.layer_norm((torch.randn(2000, 4) @ torch.randn(4, 32)).tanh(), (32,))
    data = surface + math.exp(-3) * torch.randn_like(surface)
    flow = LatentFlow(32, num_steps=4, hidden_dim=64)
    before = flow.log_prob(data).mean()
    train(flow, data, steps=200, learning_rate=2e-3)
    assert flow.log_prob(data).mean() > before + 10, "the training did nothing"
    for inputs in (data, surface):
        assert (flow.from_latent(flow.to_latent(inputs)[0])[0] - inputs).abs().max() < 1e-4
    assert (flow.to_latent(flow.from_latent(data)[0])[0] - data).abs().max() < 1e-4


@pytest.mark.parametrize("direction", ["to_latent", "from_latent"])
def test_an_outer_autocast_changes_nothing(direction):
    flow, inputs = randomised().float(), torch.randn(50, 6)
    outside = getattr(flow, direction)(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = getattr(flow, direction)(inputs)
        narrow = getattr(flow, direction)(inputs.bfloat16())
    for expected, found in zip(outside, inside, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    assert all(part.dtype == torch.float32 for part in narrow)


def test_state_dict_carries_the_whole_map_rotations_included():
    source, target = LatentFlow(6, hidden_dim=16, seed=1), LatentFlow(6, hidden_dim=16, seed=2)
    train(source, torch.randn(64, 6).exp(), steps=3)
    target.load_state_dict(source.state_dict())
    u = torch.randn(10, 6)
    for expected, found in zip(source.to_latent(u), target.to_latent(u), strict=True):
        assert torch.equal(found, expected)


def test_nothing_is_stored_in_float64():
    """Not every device has it."""
    assert [name for name, value in LatentFlow(6).state_dict().items() if value.dtype == torch.float64] == []


def test_density_at_the_start_is_the_standard_normal():
    u = torch.randn(20, 6, dtype=torch.float64)
    normal = MultivariateNormal(torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(at_the_start().log_prob(u), normal.log_prob(u))


def test_density_integrates_to_one():
    flow = randomised(embed_dim=2, num_steps=3, std=0.3)
    axis = torch.linspace(-25, 25, 500, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(grid).exp()
    cell = (axis[1] - axis[0]) ** 2
    normal = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert (density - normal.log_prob(grid).exp()).abs().max() > 0.01, "a normal density would prove little"
    assert density.sum() * cell == pytest.approx(1, abs=1e-3)


def test_two_moons_are_fitted_better_than_by_a_gaussian():
    points, _ = make_moons(2000, noise=0.05, random_state=0)
    data = torch.tensor(points, dtype=torch.float32)
    data = (data - data.mean(0)) / data.std(0)
    fitting, held_out = data[:1500], data[1500:]
    gaussian = MultivariateNormal(fitting.mean(0), fitting.T.cov()).log_prob(held_out).mean()
    flow = LatentFlow(2, num_steps=6, hidden_dim=64)
    train(flow, fitting, steps=300, learning_rate=5e-3)
    assert flow.log_prob(held_out).mean() > gaussian + 0.5


@pytest.mark.parametrize("bound", [0.5, 2.0])
@pytest.mark.parametrize("direction", ["to_latent", "from_latent"])
def test_the_scale_of_a_step_stays_within_its_bounds_whatever_the_weights(bound, direction):
    log_scales = []
    for _ in range(10):
        flow = LatentFlow(2, num_steps=1, hidden_dim=16, max_log_scale=bound)
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=10)
        # Of two columns one is scaled, so the log-determinant is its log-scale.
        log_scales.append(getattr(flow, direction)(10 * torch.randn(50, 2))[1])
    reached = torch.cat(log_scales)
    assert reached.abs().max() <= bound
    assert reached.max() > 0.99 * bound
    assert reached.min() < -0.99 * bound


def test_training_and_evaluation_mode_are_the_same_map():
    flow, u = randomised(), torch.randn(10, 6, dtype=torch.float64)
    training = flow.train().to_latent(u)[0]
    assert torch.equal(flow.eval().to_latent(u)[0], training)


def test_rows_do_not_see_each_other():
    flow, u = randomised(), torch.randn(10, 6, dtype=torch.float64)
    z, log_abs_det = flow.to_latent(u)
    alone, its_log_abs_det = flow.to_latent(u[3:4])
    torch.testing.assert_close(alone[0], z[3], rtol=0, atol=1e-12)
    torch.testing.assert_close(its_log_abs_det[0], log_abs_det[3], rtol=0, atol=1e-12)


def test_no_rows_are_fine():
    flow = LatentFlow(6)
    for outputs, log_abs_det in (flow.to_latent(torch.empty(0, 6)), flow.from_latent(torch.empty(0, 6))):
        assert outputs.shape == (0, 6)
        assert log_abs_det.shape == (0,)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="embed_dim 7 is odd"):
        LatentFlow(7)
