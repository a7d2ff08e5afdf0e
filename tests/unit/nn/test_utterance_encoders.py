"""Encoders of the peers: padding, silence, and the released reading of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cmarr_lightning.nn.encoders import FeatureEncoder
from cmarr_lightning.nn.utterance_encoders import (
    EncoderName,
    LSTMEncoder,
    MLPEncoder,
    TextCNNEncoder,
    UtteranceEncoder,
    UtteranceEncoders,
    choose_encoders,
)

DIMS = {"audio": 3, "text": 4, "face": 5}
NAMES: dict[str, EncoderName] = {"audio": "lstm", "text": "textcnn", "face": "mlp"}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def encoders(**options: object) -> UtteranceEncoders:
    return UtteranceEncoders(DIMS, NAMES, embed_dim=6, hidden_dim=8, **options).eval()  # type: ignore[arg-type]


def batch(longest: int = 9) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Three utterances of 2, 6 and `longest` frames, zeros in the padding; the same first frames for any `longest`."""
    features, masks = {}, {}
    for m, dim in DIMS.items():
        frames = torch.randn(3, 9, dim, generator=torch.Generator().manual_seed(dim))
        mask = torch.arange(longest) >= torch.tensor([[2], [6], [longest]])
        features[m] = torch.nn.functional.pad(frames, (0, 0, 0, longest - 9)).masked_fill(mask.unsqueeze(-1), 0.0)
        masks[m] = mask
    return features, masks


def test_each_modality_may_have_its_own_input_dropout():
    features, masks = batch()
    made = encoders(input_dropout={"audio": 0.0, "text": 0.9, "face": 0.0}, dropout=0.0)
    present = torch.ones(3, 1, 3, dtype=torch.bool)
    evaluated, trained = made(features, masks, present), made.train()(features, masks, present)
    same = [torch.equal(evaluated[:, :, i], trained[:, :, i]) for i in range(3)]
    assert dict(zip(DIMS, same, strict=True)) == {"audio": True, "text": False, "face": True}


def test_the_published_widths_have_the_published_numbers_of_parameters():
    """LSTM 4E(D + E) + 8E; TextCNN 12 E D + 3 E + (3E E + E)."""
    counts = [
        sum(p.numel() for p in encoder.parameters())
        for encoder in (LSTMEncoder(130, 128), LSTMEncoder(342, 128), TextCNNEncoder(1024, 128, 0.5))
    ]
    assert counts == [133_120, 241_664, 1_622_528]


@pytest.mark.parametrize(
    "encoder",
    [LSTMEncoder(4, 6), TextCNNEncoder(4, 6, 0.5), MLPEncoder(4, 6, 8, 0.5, bounded=True)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("length", [1, 2, 4, 5, 9])
def test_padding_changes_no_embedding(encoder: UtteranceEncoder, length: int):
    encoder.eval()
    alone = torch.randn(1, length, 4)
    padded = torch.nn.functional.pad(alone, (0, 0, 0, 7))
    mask = torch.arange(length + 7).unsqueeze(0) >= length
    expected = encoder(alone, torch.zeros(1, length, dtype=torch.bool))
    torch.testing.assert_close(encoder(padded, mask), expected)


@pytest.mark.parametrize("bounded", [True, False])
def test_embeddings_of_vectors_are_bounded_where_asked(bounded: bool):
    """Outliers of standardised features must not rule CMD, which compares fifth powers."""
    encoder = MLPEncoder(4, 6, 8, 0.5, bounded).eval()
    vectors = 30 * torch.randn(50, 1, 4)
    hidden = torch.relu(encoder.head[0](vectors[:, 0]))
    unbounded = torch.relu(encoder.head[3](hidden))
    assert unbounded.max() > 5
    embeddings = encoder(vectors, torch.zeros(50, 1, dtype=torch.bool))
    torch.testing.assert_close(embeddings, unbounded.tanh() if bounded else unbounded)


@pytest.mark.parametrize("bounded", [True, False])
def test_a_normalised_encoder_reads_a_vector_as_cm_arr_does(bounded: bool):
    encoder = MLPEncoder(4, 6, 8, 0.5, bounded, normalised=True).eval()
    theirs = FeatureEncoder(4, 6, hidden_dim=8, dropout=0.5).eval()
    mine = [p for layer in encoder.head for p in layer.parameters()]
    with torch.no_grad():
        for target, source in zip(theirs.parameters(), mine, strict=True):
            target.copy_(source)
    vectors = 3 * torch.randn(50, 1, 4)
    expected = theirs(vectors)[:, 0]
    assert (expected < 0).any()
    embeddings = encoder(vectors, torch.zeros(50, 1, dtype=torch.bool))
    torch.testing.assert_close(embeddings, expected.tanh() if bounded else expected)


def test_the_lstm_keeps_the_largest_state_over_time():
    encoder = LSTMEncoder(3, 5)
    frames = torch.randn(2, 4, 3)
    states = encoder.lstm(frames)[0]
    torch.testing.assert_close(encoder(frames, torch.zeros(2, 4, dtype=torch.bool)), states.max(dim=1).values)


def test_the_lstm_runs_in_float32_under_autocast():
    encoder, (features, masks) = LSTMEncoder(3, 6), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(features["audio"].bfloat16().float(), masks["audio"])
    assert torch.equal(found, encoder(features["audio"].bfloat16().float(), masks["audio"]))


@pytest.mark.parametrize("padding", ["invariant", "released"])
def test_all_encoders_run_under_autocast(padding: str):
    features, masks = batch()
    present = torch.tensor([[[True, False, True]], [[False, True, True]], [[True, True, False]]])
    made = encoders(padding=padding)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(features, masks, present)
    torch.testing.assert_close(found.float(), made(features, masks, present), rtol=0.05, atol=0.05)


def test_the_text_cnn_is_its_sum_over_the_window():
    encoder = TextCNNEncoder(4, 2, 0.0)
    tokens = torch.randn(6, 4)
    pooled = encoder.pool(tokens.unsqueeze(0), torch.zeros(1, 6, dtype=torch.bool))[0]
    expected = []
    for convolution, window in zip(encoder.convolutions, (3, 4, 5), strict=True):
        for channel in range(2):
            weight = convolution.weight[channel].T  # (w, D)
            sums = [(tokens[t : t + window] * weight).sum() + convolution.bias[channel] for t in range(7 - window)]
            expected.append(torch.stack(sums).max().clamp_min(0))
    torch.testing.assert_close(pooled, torch.stack(expected))


def test_a_missing_modality_is_embedded_as_silence_whatever_it_holds():
    network, (features, masks) = encoders(), batch()
    present = torch.tensor([[True, True, True], [False, True, False]]).expand(3, -1, -1)
    out = network(features, masks, present)
    assert out.shape == (3, 2, 3, 6)
    for i, m in enumerate(DIMS):
        silent = network.encoder[m](torch.zeros(1, 1, DIMS[m]), torch.zeros(1, 1, dtype=torch.bool))
        here = network.encoder[m](features[m], masks[m])
        torch.testing.assert_close(out[:, 0, i], here)
        torch.testing.assert_close(out[:, 1, i], here if m == "text" else silent.expand(3, -1))
    features["audio"] = features["audio"] + 100
    torch.testing.assert_close(network(features, masks, present)[:, 1], out[:, 1])


@pytest.mark.parametrize("padding", ["invariant", "released"])
def test_only_the_released_padding_depends_on_batch_mates(padding: str):
    network = encoders(padding=padding)
    everything = torch.ones(3, 1, 3, dtype=torch.bool)
    short, long = (network(*batch(longest), everything)[:2] for longest in (9, 40))
    same = torch.allclose(short, long, atol=1e-6)
    assert same == (padding == "invariant")


def test_the_released_padding_reads_zeros():
    network, (features, masks) = encoders(padding="released"), batch()
    out = network(features, masks, torch.ones(3, 1, 3, dtype=torch.bool))
    states = network.encoder["audio"].lstm(features["audio"])[0]
    torch.testing.assert_close(out[:, 0, 0], states.amax(dim=1))
    silent = network(features, masks, torch.zeros(3, 1, 3, dtype=torch.bool))
    zeros = network.encoder["audio"].lstm(torch.zeros(1, 9, 3))[0].amax(dim=1)
    torch.testing.assert_close(silent[:, 0, 0], zeros.expand(3, -1))


def test_nothing_present_at_all_and_gradients_stay_finite():
    network, (features, masks) = encoders().train(), batch()
    network(features, masks, torch.zeros(3, 2, 3, dtype=torch.bool)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_choice_that_is_given_comes_first():
    kinds = {"audio": "sequence", "text": "sequence", "face": "vector"}
    assert choose_encoders(kinds, {"text": "lstm"}) == {"audio": "lstm", "text": "lstm", "face": "mlp"}
    assert choose_encoders({"text": "vector"}) == {"text": "mlp"}
    assert choose_encoders(kinds, vector="norm_mlp") == {"audio": "lstm", "text": "textcnn", "face": "norm_mlp"}
