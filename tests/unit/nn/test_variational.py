"""The conditional VAE of NMER."""

from __future__ import annotations

import pytest
import torch

from cmarr_lightning.nn.variational import ConditionalVAE


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
