"""The network with a part left out or exchanged: what changes, by the equation, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cmarr_lightning.losses.alignment import AlignmentLoss
from cmarr_lightning.models.cmarr import CMARRNetwork, aggregate_latents
from cmarr_lightning.outputs import CMARROutput

E = 16


@pytest.fixture
def make_variant(make_network: Callable[..., CMARRNetwork]) -> Callable[..., CMARRNetwork]:
    """Build a network away from its start with options; what it shares with the plain one is equal to it."""

    def build(**options: str) -> CMARRNetwork:
        torch.manual_seed(1)
        plain = make_network()
        network = CMARRNetwork({"audio": 3, "video": 4, "text": 5}, 4, embed_dim=E, num_heads=2, **options)
        network.load_state_dict(plain.state_dict(), strict=False)
        return network.eval()

    return build


def recovered(output: CMARROutput, present: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """List utterance, condition and modality of what was recovered, and the point."""
    return [(b, k, m, output.points[b, k, m]) for b, k, m in (~present).nonzero().tolist()]


def test_points_train_on_the_means(make_variant, make_batch):
    network, batch = make_variant(alignment="points").train(), make_batch()
    output = network(*batch.inputs)
    assert torch.equal(output.embeddings, output.mean)
    assert not output.log_std.exp().any()
    plain = make_variant().train()(*batch.inputs)
    assert not torch.equal(plain.embeddings, plain.mean)


def test_points_are_aligned_by_the_cosine_of_their_means(make_variant, make_batch):
    network, batch = make_variant(alignment="points"), make_batch()
    output = network(*batch.inputs)
    loss = AlignmentLoss()(output.mean, output.log_std.exp(), batch.observed)
    direction = torch.nn.functional.normalize(output.mean, dim=-1)
    terms = []
    for m, n in ((0, 1), (0, 2), (1, 2)):
        similarity = direction[:, m] @ direction[:, n].T / 0.07
        for logits in (similarity, similarity.T):
            terms.append(-logits.log_softmax(dim=1).diagonal().mean())
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-3)


def test_points_leave_no_parameter_without_a_finite_gradient(make_variant, make_batch):
    """DistributedDataParallel waits for every parameter."""
    network, batch = make_variant(alignment="points").train(), make_batch()
    output = network(*batch.inputs)
    loss = AlignmentLoss()(output.mean, output.log_std.exp(), batch.observed)
    (loss + output.logits.sum() + output.projections.sum() + output.log_prob.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_points_have_no_precision(make_variant):
    with pytest.raises(ValueError, match="aggregation=precision needs the variances"):
        make_variant(alignment="points", aggregation="precision")


@pytest.mark.parametrize("reconstruction", ["zeros", "mean", "regressor"])
def test_without_flows_points_come_from_the_embeddings_that_are_present(make_variant, make_batch, reconstruction):
    network, batch = make_variant(reconstruction=reconstruction), make_batch(lacking=True)
    output = network(*batch.inputs)
    assert not any("coupling" in name or "transform" in name for name in network.state_dict())
    assert torch.equal(output.embeddings, make_variant()(*batch.inputs).embeddings)
    seen = 0
    for b, k, m, point in recovered(output, batch.present):
        if not batch.present[b, k].any():
            continue
        mean = output.embeddings[b, batch.present[b, k]].mean(dim=0)
        expected = {"zeros": torch.zeros(E), "mean": mean}.get(reconstruction)
        if expected is None:
            w1, _, w2 = network.flow[network.modalities[m]].layers
            expected = w2(torch.nn.functional.gelu(w1(mean)))
        torch.testing.assert_close(point, expected, rtol=0, atol=1e-5)
        seen += 1
    assert seen > 30


def test_zeros_reconstruct_nothing_that_could_be_trained(make_variant, make_batch):
    network, batch = make_variant(reconstruction="zeros").train(), make_batch()
    output = network(*batch.inputs)
    missing = output.points[~batch.present]
    assert not missing.any()
    network.zero_grad()
    missing.square().sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("present", [[True, True, False], [False, True, True], [True, False, False]])
def test_precision_weighs_latents_by_the_inverse_mean_variance(make_variant, make_batch, present):
    network, batch = make_variant(aggregation="precision"), make_batch()
    condition = torch.tensor(present).expand(5, 1, 3)
    output = network(batch.features, batch.padding_mask, condition)
    assert output.log_std.std() > 0.01, "the modalities differ in their precision"
    for b in range(5):
        total, weights = torch.zeros(E), 0.0
        for m in condition[b, 0].nonzero().flatten().tolist():
            weight = 1 / output.log_std[b, m].exp().square().mean()
            total += weight * network.flow_of(network.modalities[m]).to_latent(output.embeddings[b : b + 1, m])[0][0]
            weights += weight
        for m in (~condition[b, 0]).nonzero().flatten().tolist():
            expected = network.flow_of(network.modalities[m]).from_latent((total / weights).unsqueeze(0))[0][0]
            torch.testing.assert_close(output.points[b, 0, m], expected, rtol=0, atol=1e-4)


def test_invert_then_mean_averages_what_each_recovers_alone(make_variant, make_batch):
    network, batch = make_variant(aggregation="invert_then_mean"), make_batch(lacking=True)
    output = network(*batch.inputs)
    several = 0
    for b, k, m, point in recovered(output, batch.present):
        there = batch.present[b, k].nonzero().flatten().tolist()
        if there:
            flow, u = network.flow_of(network.modalities[m]), output.embeddings
            each = [
                flow.from_latent(network.flow_of(network.modalities[n]).to_latent(u[b : b + 1, n])[0])[0][0]
                for n in there
            ]
            torch.testing.assert_close(point, torch.stack(each).mean(dim=0), rtol=0, atol=1e-5)
            several += len(there) > 1
    assert several >= 5


@pytest.mark.parametrize(
    "options",
    [
        {"alignment": "points"},
        {"reconstruction": "zeros"},
        {"reconstruction": "mean"},
        {"reconstruction": "regressor"},
        {"aggregation": "precision"},
        {"aggregation": "invert_then_mean"},
    ],
)
def test_no_variant_reads_what_is_not_present(make_variant, make_batch, options):
    network, batch = make_variant(**options), make_batch(lacking=True)
    expected = network(*batch.inputs)
    usable = batch.present.any(dim=-1)
    for i, m in enumerate(batch.names):
        other = network({**batch.features, m: torch.full_like(batch.features[m], torch.nan)}, *batch.inputs[1:])
        unread = usable & ~batch.present[:, :, i]
        for name in ("logits", "points"):
            before, after = getattr(expected, name), getattr(other, name)
            torch.testing.assert_close(after[unread], before[unread], rtol=0, atol=1e-5)


def test_one_modality_alone_is_aggregated_alike_by_every_rule(make_variant, make_batch):
    batch = make_batch()
    alone = torch.eye(3, dtype=torch.bool).expand(5, 3, 3)
    plain, *others = (
        make_variant(aggregation=rule)(batch.features, batch.padding_mask, alone).points
        for rule in ("mean", "precision", "invert_then_mean")
    )
    for points in others:
        torch.testing.assert_close(points, plain, rtol=0, atol=1e-4)


def test_latents_are_weighted():
    latents = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]]])
    weight = torch.tensor([[[1.0, 3.0, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]]])
    expected = torch.tensor([[[2.5, 3.5], [8.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(aggregate_latents(latents, weight), expected)
