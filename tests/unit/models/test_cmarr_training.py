"""Which gradients go where, and mixed precision."""

from __future__ import annotations

import pytest
import torch

from cmarr_lightning.losses.reconstruction import reconstruction_error
from cmarr_lightning.losses.total import CMARRLoss

E = 16  # of the networks in conftest.py
SEQUENCES = (7, 3, 4)  # attention over a single frame has no gradient


def without_gradient(network: torch.nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_training_samples_from_the_gaussians(make_network, make_batch):
    network, batch = make_network().train(), make_batch(size=64)
    first, second = network(*batch.inputs), network(*batch.inputs)
    assert not torch.equal(first.embeddings, second.embeddings)
    noise = (first.embeddings - first.mean) / first.log_std.exp()
    assert noise.mean().abs() < 0.1
    assert noise.std().item() == pytest.approx(1, abs=0.1)


def test_likelihood_is_that_of_the_flows(make_network, make_batch):
    network, batch = make_network(), make_batch()
    output = network(*batch.inputs)
    for i, m in enumerate(batch.names):
        torch.testing.assert_close(output.log_prob[:, i], network.flow[m].log_prob(output.embeddings[:, i]))


def test_likelihood_trains_the_flows_and_not_the_embeddings_while_the_latents_do(make_network):
    network, embeddings = make_network(), torch.randn(5, 3, E, requires_grad=True)
    latents, log_prob = network.to_latents(embeddings)
    (gradient,) = torch.autograd.grad(log_prob.sum(), embeddings, retain_graph=True, allow_unused=True)
    assert gradient is None or (gradient == 0).all()
    (gradient,) = torch.autograd.grad(latents.square().sum(), embeddings, retain_graph=True)
    assert (gradient != 0).any(dim=-1).all()
    log_prob.sum().backward()
    assert without_gradient(network.flow) == []


def test_reconstruction_error_trains_both_flows_and_the_source_only(make_network, make_batch):
    network, batch = make_network(2), make_batch(2)
    present = torch.tensor([True, False]).expand(5, 1, 2)
    output = network(batch.features, batch.padding_mask, present)
    reconstruction_error(output.points, output.embeddings, ~present).backward()
    for part in (network.flow["audio"], network.flow["video"]):
        assert without_gradient(part) == []
    for part in (network.encoder, network.umc):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part["audio"].parameters())
        assert all(p.grad is None or (p.grad == 0).all() for p in part["video"].parameters())


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_reaches_every_parameter(make_network, make_batch, count):
    network, loss, batch = make_network(count).train(), CMARRLoss(), make_batch(count, 8, SEQUENCES)
    refined = torch.zeros(8, dtype=torch.long)
    loss(network(*batch.inputs, refined), batch.observed, batch.labels).total.backward()
    assert without_gradient(network) == []
    assert without_gradient(loss) == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_loss_reaches_every_parameter_of_a_fresh_network_after_one_step(fresh_network, make_batch):
    network = fresh_network()
    loss, batch = CMARRLoss(), make_batch(longest=SEQUENCES)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss(network(*batch.inputs), batch.observed, batch.labels).total.backward()
        optimizer.step()
    assert without_gradient(network) == []


def test_rows_that_lack_modalities_train_without_touching_what_they_lack(make_network, make_batch):
    network, loss, batch = make_network().train(), CMARRLoss(), make_batch(3, 8, SEQUENCES, lacking=True)
    for x in batch.features.values():
        x.requires_grad_()
    terms = loss(network(*batch.inputs), batch.observed, batch.labels)
    terms.total.backward()
    assert all(term.isfinite() for term in terms)
    assert without_gradient(network) == []
    for i, m in enumerate(batch.names):
        gradient = batch.features[m].grad.flatten(1)
        assert (gradient[~batch.observed[:, i]] == 0).all()
        assert (gradient[batch.observed[:, i]] != 0).any(dim=1).all()


def test_a_batch_in_which_nobody_has_a_modality_trains(make_network, make_batch):
    network, loss, batch = make_network().train(), CMARRLoss(), make_batch()
    batch.observed[:, 1] = False
    batch.features["video"].zero_()
    loss(network(*batch.inputs), batch.observed, batch.labels).total.backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == [], "DistributedDataParallel would wait for them"
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_bfloat16_autocast_keeps_the_flows_invertible_and_trains(make_network, make_batch):
    network, loss, batch = make_network().train(), CMARRLoss(), make_batch(longest=SEQUENCES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(*batch.inputs)
        assert output.log_prob.dtype == torch.float32
        assert network.round_trip_error(output.embeddings) < 1e-4
        terms = loss(output, batch.observed, batch.labels)
    terms.total.backward()
    assert without_gradient(network) == []
    assert all(p.grad.isfinite().all() for p in network.parameters())
