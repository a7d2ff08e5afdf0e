"""Sizes, wiring and independence of MMIN, IF-MMIN, NMER and the fusion baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cmarr_lightning.models.fusion import FusionNetwork
from cmarr_lightning.models.if_mmin import IFMMINNetwork
from cmarr_lightning.models.mmin import MMINNetwork
from cmarr_lightning.models.nmer import NMERNetwork
from cmarr_lightning.models.two_stage import EncoderOptions, TwoStageNetwork

IEMOCAP = {"audio": 130, "video": 342, "text": 1024}
ENCODERS = 133_120 + 241_664 + 1_622_528  # LSTM, LSTM, TextCNN: tests/unit/nn/test_utterance_encoders.py
CASCADE = 1_694_400  # tests/unit/nn/test_imagination.py
INVARIANT = 2 * (128 * 128 + 128)
HIDDEN = 128 * 128 + 128 + 128 * 4 + 4  # second hidden layer and output of a classifier of 4 classes
NETWORKS = [MMINNetwork, IFMMINNetwork, NMERNetwork]


def options(**given: Any) -> EncoderOptions:
    defaults: EncoderOptions = {
        "encoders": {"audio": "lstm", "video": "lstm", "text": "textcnn"},
        "embed_dim": 128,
        "hidden_dim": 128,
        "dropout": 0.5,
        "input_dropout": 0.0,
        "bounded": True,
        "padding": "invariant",
    }
    return defaults | given  # type: ignore[return-value]


def trainable(network: TwoStageNetwork) -> int:
    """Count what stage 2 trains."""
    network.begin_student()
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_the_size_of_mmin():
    classifier = 320 * 128 + 128 + HIDDEN
    assert trainable(MMINNetwork(IEMOCAP, 4, **options())) == ENCODERS + 2 * CASCADE + classifier == 5_444_228


@pytest.mark.parametrize("wiring", ["paper2022", "head2024"])
def test_the_size_of_if_mmin(wiring: Any):
    classifier = 320 * 128 + 128 + HIDDEN
    network = IFMMINNetwork(IEMOCAP, 4, wiring, **options())
    assert trainable(network) == ENCODERS + INVARIANT + CASCADE + classifier == 3_782_852


def test_the_size_of_nmer():
    attention = 3 * (768 * 768 + 768) + 768 * 768 + 768
    layer = attention + 768 * 128 + 128 + 128 * 768 + 768 + 2 * 2 * 768
    decoder = (64 + 384) * 128 + 128 + 128 * 384 + 384
    never_called = (64 + 384) * 384 + 384
    vae = 5 * layer + 2 * (768 * 64 + 64) + decoder + never_called
    classifier = 384 * 128 + 128 + HIDDEN + 2 * 2 * 128  # batch normalisation
    assert trainable(NMERNetwork(IEMOCAP, 4, **options())) == 2 * ENCODERS + INVARIANT + vae + classifier == 17_287_044


def test_the_sizes_of_the_teachers():
    """Those of the released stage 1 programs; NMER's without the U-Net."""
    sizes = [sum(p.numel() for p in cls(IEMOCAP, 4, **options()).teacher.parameters()) for cls in NETWORKS]
    fusion = 384 * 128 + 128 + HIDDEN
    both = 768 * 128 + 128 + HIDDEN
    assert sizes == [ENCODERS + fusion, ENCODERS + INVARIANT + both, 2 * ENCODERS + INVARIANT + both]
    assert sizes[:2] == [2_063_620, 2_145_796]


Made = Callable[..., tuple[torch.nn.Module, Any]]


@pytest.fixture(params=[*NETWORKS, FusionNetwork], ids=lambda cls: cls.__name__)
def made(request: pytest.FixtureRequest, make_batch: Callable[..., Any]) -> Made:
    """Build a small network in evaluation mode and a batch for it, for any number of modalities."""

    def build(num_modalities: int, **given: Any) -> tuple[torch.nn.Module, Any]:
        batch = make_batch(num_modalities, lacking=True)
        dims = {m: x.shape[-1] for m, x in batch.features.items()}
        if request.param is FusionNetwork:
            network: torch.nn.Module = FusionNetwork(dims, 4, embed_dim=16)
        else:
            kinds = {m: "lstm" if x.shape[1] > 1 else "mlp" for m, x in batch.features.items()}
            kinds["text"] = "textcnn" if num_modalities > 2 else kinds.get("text", "mlp")
            network = request.param(dims, 4, **options(encoders=kinds, embed_dim=16, hidden_dim=16, **given))
        return network.eval(), batch

    return build


@pytest.mark.parametrize("num_modalities", [2, 3, 6])
def test_logits_of_all_conditions(made: Made, num_modalities: int):
    network, batch = made(num_modalities)
    assert network(*batch.inputs).shape == (5, 2**num_modalities - 1, 4)


def test_a_prediction_does_not_depend_on_batch_mates(made: Made):
    network, batch = made(3)
    features, masks, present = batch.inputs
    whole = network(features, masks, present)
    for b in range(len(whole)):
        alone = _only(features, masks, b)
        torch.testing.assert_close(network(*alone, present[b : b + 1])[0], whole[b], rtol=1e-4, atol=1e-5)


def _only(features: dict[str, Tensor], masks: dict[str, Tensor], b: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take one utterance out of a batch, without padding."""
    kept = {m: (~mask[b]).sum() for m, mask in masks.items()}
    return {m: features[m][b : b + 1, : kept[m]] for m in kept}, {m: masks[m][b : b + 1, : kept[m]] for m in kept}


def test_nothing_is_read_that_is_not_present(made: Made):
    network, batch = made(3)
    features, masks, present = batch.inputs
    before = network(features, masks, present)
    features["audio"] = torch.randn_like(features["audio"])
    without = ~present[:, :, 0]
    torch.testing.assert_close(network(features, masks, present)[without], before[without])
    assert not torch.allclose(network(features, masks, present)[~without], before[~without])


@pytest.mark.parametrize("cls", NETWORKS)
def test_the_student_inherits_the_teachers_encoders_and_the_teacher_rests(cls: Any):
    network = cls({"a": 3, "b": 4}, 4, **options(encoders={"a": "lstm", "b": "mlp"}, embed_dim=16))
    names = network.teacher.inherited
    theirs = {n: v for n, v in network.student.named_parameters() if n.startswith(names)}
    assert any(not torch.equal(v, dict(network.teacher.named_parameters())[n]) for n, v in theirs.items())
    network.begin_student()
    for name, value in theirs.items():
        assert torch.equal(value, dict(network.teacher.named_parameters())[name])
        assert value.requires_grad
    network.train()
    assert not network.teacher.training
    assert network.student.training
    assert not any(p.requires_grad for p in network.teacher.parameters())


def test_what_has_nothing_present_does_not_enter_batch_normalisation(make_batch: Callable[..., Any]):
    batch = make_batch(3, lacking=True)
    dims = {m: x.shape[-1] for m, x in batch.features.items()}
    student = NMERNetwork(dims, 4, **options(encoders=dict.fromkeys(dims, "mlp"), embed_dim=16, hidden_dim=16)).student
    seen: list[Tensor] = []
    student.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    output = student(*batch.inputs)
    usable = batch.present.any(dim=-1)
    assert not usable.all()
    assert torch.equal(seen[0], output.imagined.flatten(2)[usable])
    assert not output.logits[~usable].any()
    assert output.logits[usable].any(dim=-1).all()


def test_padding_stays_zero_when_features_are_scaled(make_batch: Callable[..., Any]):
    batch = make_batch(3)
    dims = {m: x.shape[-1] for m, x in batch.features.items()}
    network = MMINNetwork(dims, 4, **options(encoders=dict.fromkeys(dims, "lstm"), embed_dim=16))
    for m, dim in dims.items():
        network.scaler[m].fit(torch.ones(dim), torch.ones(dim), torch.full((dim,), -9.0), torch.full((dim,), 9.0))
    scaled = network.scale(batch.features, batch.padding_mask)
    for m, mask in batch.padding_mask.items():
        assert not scaled[m][mask].any()
        torch.testing.assert_close(scaled[m][~mask], batch.features[m][~mask] - 1)


def test_zero_and_mean_imputation_differ_by_the_mean():
    x, masks = {"a": torch.randn(2, 3, 4), "b": torch.randn(2, 1, 5)}, {}
    masks = {m: torch.zeros(v.shape[:2], dtype=torch.bool) for m, v in x.items()}
    logits = {}
    for imputation in ("zero", "mean"):
        torch.manual_seed(0)
        network = FusionNetwork({"a": 4, "b": 5}, 4, imputation, embed_dim=16).eval()  # type: ignore[arg-type]
        wide = torch.full((5,), 9.0)
        network.scaler["b"].fit(torch.full((5,), 2.0), torch.ones(5), -wide, wide)
        missing = torch.tensor([[[True, False]]]).expand(2, -1, -1)
        logits[imputation] = network(x, masks, missing)
        stands_for_it = torch.zeros(2, 1, 5) if imputation == "zero" else torch.full((2, 1, 5), 2.0)
        given = network(x | {"b": stands_for_it}, masks, torch.ones(2, 1, 2, dtype=torch.bool))
        torch.testing.assert_close(logits[imputation], given)
    assert not torch.allclose(logits["zero"], logits["mean"])
