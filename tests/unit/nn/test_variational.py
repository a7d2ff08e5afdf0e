"""The conditional VAE of NMER."""

from __future__ import annotations

import pytest
import torch

from cmarr_lightning.nn.variational import ConditionalVAE, encode_singles


def vae(**options: bool) -> ConditionalVAE:
    torch.manual_seed(0)
    return ConditionalVAE(8, 8, hidden_dim=6, latent_dim=3, num_layers=2, num_heads=4, **options).eval()


@pytest.mark.parametrize("batch_attention", [False, True])
def test_utterances_meet_only_where_they_shall(batch_attention: bool):
    network, x, q = vae(batch_attention=batch_attention), torch.randn(5, 3, 8), torch.randn(5, 3, 8)
    whole, alone = network(x, q).mean, network(x[:1], q[:1]).mean
    assert torch.allclose(whole[:1], alone, atol=1e-6) == (not batch_attention)


def test_conditions_never_meet_even_when_utterances_do():
    network, x, q = vae(batch_attention=True), torch.randn(5, 3, 8), torch.randn(5, 3, 8)
    torch.testing.assert_close(network(x, q).mean[:, 1:2], network(x[:, 1:2], q[:, 1:2]).mean)


def test_the_latent_is_a_sample_in_training_and_the_mean_otherwise():
    network, x, q = vae(), torch.randn(4, 1, 8), torch.randn(4, 1, 8)
    first, again = network(x, q), network(x, q)
    assert torch.equal(first.recovered, again.recovered)
    decoded = network.decoder(torch.cat([first.mean, q], dim=-1))
    torch.testing.assert_close(first.recovered, decoded)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network.train()
    assert not torch.equal(network(x, q).recovered, network(x, q).recovered)


def test_what_is_recovered_lies_in_the_unit_interval():
    recovered = vae()(50 * torch.randn(4, 2, 8), torch.randn(4, 2, 8)).recovered
    assert ((recovered >= 0) & (recovered <= 1)).all()


@pytest.mark.parametrize("training", [False, True])
def test_single_vectors_are_encoded_as_by_torch(training: bool):
    """Output and gradients; in training without dropout, whose random numbers differ."""
    network, x = vae().transformer.train(training), torch.randn(5, 3, 16)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    gradients = []
    for encode in (lambda: network(x.view(1, 15, 16)).view(5, 3, 16), lambda: encode_singles(network, x)):
        network.zero_grad()
        encoded = encode()
        encoded.square().sum().backward()
        gradients.append([encoded, *(p.grad.clone() for p in network.parameters())])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_dropout_hits_whole_heads_of_single_vectors():
    network = vae().transformer.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    (layer,) = network.layers[:1]
    values = []
    layer.self_attn.out_proj.register_forward_pre_hook(lambda _, args: values.append(args[0]))
    encode_singles(network, torch.randn(4000, 16))
    heads = values[0].view(4000, 4, 4)
    dropped = (heads == 0).all(-1)
    assert torch.equal(dropped, (heads == 0).any(-1))
    assert dropped.float().mean().item() == pytest.approx(layer.self_attn.dropout, abs=0.02)
