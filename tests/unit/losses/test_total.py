from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmarr_lightning.losses.reconstruction import masked_mean
from cmarr_lightning.losses.refinement import supervised_contrastive
from cmarr_lightning.losses.total import CMARRLoss
from cmarr_lightning.modalities import condition_table
from cmarr_lightning.outputs import CMARROutput

MODALITIES = ("audio", "video", "text")
B, M, E, C = 6, 3, 8, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def observed() -> Tensor:
    observed = torch.ones(B, M, dtype=torch.bool)
    observed[2, 0] = observed[5, 2] = False
    return observed


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 3])


@pytest.fixture
def output(observed: Tensor) -> CMARROutput:
    """Random numbers for what a network returned under all seven conditions, each with a gradient."""
    present = condition_table(MODALITIES) & observed.unsqueeze(1)
    k = present.shape[1]
    output = CMARROutput(
        mean=torch.randn(B, M, E),
        log_std=0.3 * torch.randn(B, M, E),
        embeddings=torch.randn(B, M, E),
        log_prob=-10 * torch.rand(B, M),
        points=torch.randn(B, k, M, E),
        present=present,
        projections=F.normalize(torch.randn(B, M, 5), dim=-1),
        logits=torch.randn(B, k, C),
    )
    for field in fields(output):
        tensor = getattr(output, field.name)
        if tensor.is_floating_point():
            tensor.requires_grad_()
    return output


def test_terms_by_hand(output, observed, labels):
    loss = CMARRLoss(label_smoothing=0.0)
    terms = loss(output, observed, labels)
    log_softmax = output.logits.log_softmax(dim=-1)
    cls, recon = [], []
    for b in range(B):
        for k in range(7):
            if not output.present[b, k].any():
                continue
            cls.append(-log_softmax[b, k, labels[b]].item())
            for m in range(M):
                if observed[b, m] and not output.present[b, k, m]:
                    recon.append((output.points[b, k, m] - output.embeddings[b, m]).square().mean().item())
    assert terms.cls.item() == pytest.approx(sum(cls) / len(cls), rel=1e-5)
    assert terms.recon.item() == pytest.approx(sum(recon) / len(recon), rel=1e-5)
    assert terms.nll.item() == pytest.approx(-output.log_prob[observed].mean().item() / E, rel=1e-5)
    assert terms.align.item() == pytest.approx(loss.align(output.mean, output.log_std.exp(), observed).item(), rel=1e-5)
    points = output.projections.reshape(B * M, -1)
    names = torch.tensor([labels[b] for b in range(B) for _ in range(M)])
    assert terms.refine.item() == pytest.approx(supervised_contrastive(points, names, 0.1).item(), rel=1e-5)


@pytest.mark.parametrize("ramp", [0.0, 0.3, 1.0])
def test_total_is_the_weighted_sum_of_the_terms(output, observed, labels, ramp):
    loss = CMARRLoss(weight_align=0.7, weight_recon=0.3, weight_nll=0.5, weight_refine=0.2)
    terms = loss(output, observed, labels, ramp=ramp)
    expected = terms.cls + 0.7 * terms.align + ramp * (0.3 * (terms.recon + 0.5 * terms.nll) + 0.2 * terms.refine)
    torch.testing.assert_close(terms.total, expected)


def moved(loss: CMARRLoss, output: CMARROutput, observed: Tensor, labels: Tensor, ramp: float = 1.0) -> set[str]:
    """Name the fields of the output that the total sends a gradient to."""
    loss(output, observed, labels, ramp=ramp).total.backward()
    tensors = {field.name: getattr(output, field.name) for field in fields(output)}
    return {name for name, tensor in tensors.items() if tensor.grad is not None and tensor.grad.abs().sum() > 0}


ALL_OFF = {"weight_align": 0.0, "weight_recon": 0.0, "weight_nll": 0.0, "weight_refine": 0.0}


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ({}, {"logits"}),
        ({"weight_align": 1.0}, {"logits", "mean", "log_std"}),
        ({"weight_recon": 1.0}, {"logits", "points"}),
        ({"weight_recon": 1.0, "weight_nll": 1.0}, {"logits", "points", "log_prob"}),
        ({"weight_nll": 1.0}, {"logits"}),
        ({"weight_refine": 1.0}, {"logits", "projections"}),
    ],
)
def test_a_weight_of_zero_switches_its_term_off(output, observed, labels, on, expected):
    assert moved(CMARRLoss(**{**ALL_OFF, **on}), output, observed, labels) == expected


def test_alignment_and_classification_come_first(output, observed, labels):
    assert moved(CMARRLoss(), output, observed, labels, ramp=0.0) == {"logits", "mean", "log_std"}


def test_rows_without_a_label_train_everything_but_classification_and_refinement(output, observed, labels):
    labels[1] = labels[4] = -1
    CMARRLoss()(output, observed, labels).total.backward()
    for name in ("logits", "projections"):
        assert (getattr(output, name).grad[[1, 4]] == 0).all()
    for name in ("mean", "log_std", "points", "log_prob"):
        assert (getattr(output, name).grad[[1, 4]] != 0).flatten(1).any(dim=1).all()


def test_without_any_label_the_rest_still_trains(output, observed, labels):
    terms = CMARRLoss()(output, observed, torch.full_like(labels, -1))
    assert terms.cls.item() == terms.refine.item() == 0
    terms.total.backward()
    assert terms.total.isfinite()
    assert (output.logits.grad == 0).all()
    assert output.points.grad.abs().sum() > 0


def test_unusable_conditions_are_not_classified(output, observed, labels):
    usable = output.present.any(dim=-1)
    assert (~usable).sum() == 2  # rows 2 and 5 under the condition of the one modality they lack
    CMARRLoss()(output, observed, labels).total.backward()
    assert (output.logits.grad[~usable] == 0).all()
    assert (output.logits.grad[usable] != 0).any(dim=-1).all()
    assert (output.points.grad[~usable] == 0).all()


def test_nothing_is_learned_from_modalities_that_are_not_on_disk(output, observed, labels):
    CMARRLoss()(output, observed, labels).total.backward()
    for name in ("mean", "log_std", "log_prob"):
        assert (getattr(output, name).grad[~observed] == 0).all()
    assert (output.points.grad[2, :, 0] == 0).all()
    assert (output.points.grad[5, :, 2] == 0).all()


def test_label_smoothing_and_class_weights_are_those_of_the_definition(output, observed, labels):
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0])
    found = CMARRLoss(label_smoothing=0.2)(output, observed, labels, class_weight=weight).cls
    log_softmax = output.logits.log_softmax(dim=-1)
    target = 0.8 * F.one_hot(labels, C) + 0.2 / C
    per_condition = -(weight * target.unsqueeze(1) * log_softmax).sum(dim=-1)
    torch.testing.assert_close(found, masked_mean(per_condition, output.present.any(dim=-1)))


def test_uniform_logits_cost_log_c(output, observed, labels):
    output.logits = torch.zeros_like(output.logits)
    assert CMARRLoss()(output, observed, labels).cls.item() == pytest.approx(math.log(C))


def test_order_of_the_rows_does_not_matter(output, observed, labels):
    loss, order = CMARRLoss(), torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = loss(output.map(lambda tensor: tensor[order]), observed[order], labels[order])
    for expected, found in zip(loss(output, observed, labels), shuffled, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_learned_temperature_is_the_only_parameter(output, observed, labels):
    loss = CMARRLoss()
    assert [name for name, _ in loss.named_parameters()] == ["align.log_temperature"]
    loss(output, observed, labels).total.backward()
    assert loss.align.log_temperature.grad.abs() > 0
