from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from cmarr_lightning.modalities import condition_table
from cmarr_lightning.models.cmarr import CMARRNetwork, aggregate_latents
from cmarr_lightning.outputs import CMARROutput

E, C = 16, 4  # of the networks in conftest.py


def assert_same(found: CMARROutput, expected: CMARROutput, tolerance: float = 1e-5) -> None:
    for field in fields(expected):
        one, two = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance, msg=lambda m, f=field: f"{f.name}: {m}")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_shapes_under_all_conditions(make_network, make_batch, count, training):
    network, batch = make_network(count).train(training), make_batch(count)
    k = 2**count - 1
    output = network(*batch.inputs)
    assert output.mean.shape == output.log_std.shape == output.embeddings.shape == (5, count, E)
    assert output.log_prob.shape == (5, count)
    assert output.points.shape == (5, k, count, E)
    assert output.logits.shape == (5, k, C)
    assert output.projections.shape[:2] == (5, count)
    assert torch.equal(output.present, batch.present)
    assert all(getattr(output, field.name).isfinite().all() for field in fields(output))


def test_vectors_alone_and_one_row_alone_work():
    network = CMARRNetwork({"a": 3, "b": 4}, C, embed_dim=E, num_heads=2)
    features = {"a": torch.randn(1, 1, 3), "b": torch.randn(1, 1, 4)}
    mask = {m: torch.zeros(1, 1, dtype=torch.bool) for m in features}
    assert network(features, mask, torch.ones(1, 1, 2, dtype=torch.bool)).logits.shape == (1, 1, C)


def test_each_modality_may_have_its_own_input_dropout():
    dropout = {"b": 0.9, "a": 0.0}
    network = CMARRNetwork(
        {"a": 30, "b": 40}, C, embed_dim=E, num_heads=2, encoder_dropout=0.0, umc_dropout=0.0, input_dropout=dropout
    )
    features = {"a": torch.randn(5, 1, 30), "b": torch.randn(5, 1, 40)}
    mask = {m: torch.zeros(5, 1, dtype=torch.bool) for m in features}
    evaluated, trained = network.eval().encode(features, mask), network.train().encode(features, mask)
    assert torch.equal(evaluated.mean[:, 0], trained.mean[:, 0])
    assert not torch.equal(evaluated.mean[:, 1], trained.mean[:, 1])


def test_all_conditions_at_once_equal_one_after_the_other(make_network, make_batch):
    network, batch = make_network(), make_batch()
    together = network(*batch.inputs)
    for k in range(7):
        alone = network(batch.features, batch.padding_mask, batch.present[:, k : k + 1])
        torch.testing.assert_close(alone.logits[:, 0], together.logits[:, k], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.points[:, 0], together.points[:, k], rtol=0, atol=1e-5)


@pytest.mark.parametrize("content", ["random", "large", "NaN"])
@pytest.mark.parametrize("count", [2, 3])
def test_what_is_not_present_is_never_read(make_network, make_batch, count, content):
    network, batch = make_network(count), make_batch(count)
    expected = network(*batch.inputs)
    for i, m in enumerate(batch.names):
        shape = batch.features[m].shape
        value = {
            "random": 3 * torch.randn(shape),
            "large": torch.full(shape, 1e8),
            "NaN": torch.full(shape, torch.nan),
        }[content]
        other = network({**batch.features, m: value}, batch.padding_mask, batch.present)
        excluded = ~condition_table(batch.names)[:, i]
        for name in ("logits", "points"):
            before, after = getattr(expected, name), getattr(other, name)
            torch.testing.assert_close(after[:, excluded], before[:, excluded], rtol=0, atol=1e-5)
            assert (after[:, ~excluded] - before[:, ~excluded]).abs().max() > 1e-3, "where present it is read"


def test_a_modality_that_is_not_on_disk_is_never_read(make_network, make_batch):
    network, batch = make_network(), make_batch(lacking=True)
    expected = network(*batch.inputs)
    for i, m in enumerate(batch.names):
        batch.features[m][~batch.observed[:, i]] = 1e3
    other = network(*batch.inputs)
    usable = batch.present.any(dim=-1)
    for name in ("logits", "points"):
        before, after = getattr(expected, name), getattr(other, name)
        torch.testing.assert_close(after[usable], before[usable], rtol=0, atol=1e-5)


def test_padding_changes_nothing(make_network, make_batch):
    network, batch = make_network(), make_batch()
    expected = network(*batch.inputs)
    for m in ("audio", "text"):
        garbage = 100 * torch.randn(5, 6, batch.features[m].shape[2])
        batch.features[m] = torch.cat([batch.features[m], garbage], dim=1)
        batch.padding_mask[m] = torch.cat([batch.padding_mask[m], torch.ones(5, 6, dtype=torch.bool)], dim=1)
    assert_same(network(*batch.inputs), expected)


def test_padding_does_not_change_an_utterance_of_a_single_frame(make_network, make_batch):
    network, batch = make_network(2), make_batch(2, longest=(1, 1))
    expected = network(*batch.inputs)
    batch.features["audio"] = torch.cat([batch.features["audio"], torch.zeros(5, 2, 3)], dim=1)
    batch.padding_mask["audio"] = torch.tensor([False, True, True]).expand(5, 3)
    assert_same(network(*batch.inputs), expected)


def test_batch_mates_change_nothing(make_network, make_batch):
    network, batch = make_network(), make_batch(size=6, lacking=True)
    together = network(*batch.inputs)
    for b in range(6):
        lengths = {m: max(1, int((~mask[b]).sum())) for m, mask in batch.padding_mask.items()}
        alone = network(
            {m: x[b : b + 1, : lengths[m]] for m, x in batch.features.items()},
            {m: x[b : b + 1, : lengths[m]] for m, x in batch.padding_mask.items()},
            batch.present[b : b + 1],
        )
        for name in ("logits", "points", "projections"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[b], rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_reconstruction_is_the_inverse_flow_of_the_mean_latent(make_network, make_batch, count, training):
    network, batch = make_network(count).train(training), make_batch(count, lacking=True)
    output = network(*batch.inputs)
    recovered = 0
    for b in range(5):
        u = output.embeddings[b : b + 1]
        z = [network.flow[m].to_latent(u[:, i])[0] for i, m in enumerate(batch.names)]
        for k in range(2**count - 1):
            there = [i for i in range(count) if batch.present[b, k, i]]
            for i, m in enumerate(batch.names):
                if i in there:
                    assert torch.equal(output.points[b, k, i], output.embeddings[b, i])
                elif there:
                    mean = sum(z[n] for n in there) / len(there)
                    expected = network.flow[m].from_latent(mean)[0][0]
                    torch.testing.assert_close(output.points[b, k, i], expected, rtol=0, atol=1e-5)
                    recovered += 1
    assert recovered >= 10


def test_flows_start_in_one_frame(fresh_network, make_batch):
    """Equal flows: what is recovered is the mean of what is present, before anything is learned."""
    network, batch = fresh_network().eval(), make_batch()
    output = network(*batch.inputs)
    expected = aggregate_latents(output.embeddings, batch.present).unsqueeze(2).expand(-1, -1, 3, -1)
    missing = ~batch.present
    torch.testing.assert_close(output.points[missing], expected[missing], rtol=0, atol=1e-5)


def test_latents_are_averaged_over_what_is_present():
    latents = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]]])
    present = torch.tensor([[[True, False, False], [True, True, False], [True, True, True], [False] * 3]])
    expected = torch.tensor([[[1.0, 2.0], [2.0, 3.0], [4.0, 2.0], [0.0, 0.0]]])
    torch.testing.assert_close(aggregate_latents(latents, present), expected)


def test_latents_are_not_rounded_under_autocast():
    latents, present = torch.randn(4, 3, 8), torch.rand(4, 7, 3) < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = aggregate_latents(latents, present)
    assert found.dtype == torch.float32
    assert torch.equal(found, aggregate_latents(latents, present))


def test_evaluation_uses_the_means_and_is_deterministic(make_network, make_batch):
    network, batch = make_network(), make_batch()
    output = network(*batch.inputs)
    assert torch.equal(output.embeddings, output.mean)
    assert_same(network(*batch.inputs), output, tolerance=0)


def test_gradient_mode_does_not_change_the_result(make_network, make_batch):
    network, batch = make_network(), make_batch()
    with torch.inference_mode():
        expected = network(*batch.inputs)
    assert_same(network(*batch.inputs), expected, tolerance=1e-6)


def test_projections_are_those_of_the_chosen_condition(make_network, make_batch):
    network, batch = make_network(), make_batch()
    refined = torch.tensor([0, 6, 3, 5, 2])
    output = network(*batch.inputs, refined)
    torch.testing.assert_close(output.projections.norm(dim=-1), torch.ones(5, 3))
    for b, k in enumerate(refined.tolist()):
        chosen = network(batch.features, batch.padding_mask, batch.present[:, k : k + 1])
        torch.testing.assert_close(output.projections[b], chosen.projections[b], rtol=0, atol=1e-5)
    last = network(*batch.inputs, torch.full((5,), 6))
    assert_same(network(*batch.inputs), last)


def test_bfloat16_autocast_gives_nearly_the_same_result(make_network, make_batch):
    network, batch = make_network(), make_batch()
    expected = network(*batch.inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(*batch.inputs)
    assert (found.mean - expected.mean).abs().max() < 0.1
    assert (found.logits.float() - expected.logits).abs().max() < 0.1 * expected.logits.abs().max() + 0.1


def test_round_trip_error_is_the_largest_of_all_flows(make_network):
    network, embeddings = make_network(), torch.randn(5, 3, E)
    errors = []
    for i, m in enumerate(network.modalities):
        z, _ = network.flow[m].to_latent(embeddings[:, i])
        errors.append((network.flow[m].from_latent(z)[0] - embeddings[:, i]).abs().max().item())
    assert network.round_trip_error(embeddings).item() == pytest.approx(max(errors), rel=1e-3, abs=0)
    assert 0 < network.round_trip_error(embeddings) < 1e-4


def test_a_missing_value_is_read_as_the_training_mean(make_network, make_batch):
    network, batch = make_network(), make_batch()
    mean = torch.tensor([5.0, -2.0, 1.0])
    network.scaler["audio"].fit(mean, torch.full((3,), 2.0), torch.full((3,), -50.0), torch.full((3,), 50.0))
    audio = batch.features["audio"]
    with_nan, with_mean = audio.clone(), audio.clone()
    with_nan[:, 0, 1] = torch.nan
    with_mean[:, 0, 1] = mean[1]
    outputs = [network({**batch.features, "audio": x}, *batch.inputs[1:]) for x in (with_nan, with_mean)]
    assert_same(*outputs)


def test_state_dict_carries_everything(fresh_network, make_network, make_batch):
    source, batch = make_network(), make_batch()
    source.scaler["audio"].fit(*(torch.tensor(v).expand(3) for v in (0.5, 2.0, -1.0, 1.0)))
    target = fresh_network().eval()
    target.load_state_dict(source.state_dict())
    assert_same(target(*batch.inputs), source(*batch.inputs), tolerance=0)
