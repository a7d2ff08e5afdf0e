from __future__ import annotations

import audmetric
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

from cmarr_lightning.metrics import (
    ConditionMetrics,
    macro_f1,
    unweighted_average_recall,
    weighted_average_recall,
)
from cmarr_lightning.modalities import all_conditions

AUDIO_TEXT = all_conditions(("audio", "text"))  # audio, text, audio+text


def confusion(truth: list[int], predicted: list[int], num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes, num_classes, dtype=torch.long)
    for i, j in zip(truth, predicted, strict=True):
        counts[i, j] += 1
    return counts


def logits_for(predicted: Tensor, num_classes: int) -> Tensor:
    """Return logits (B, K, C) whose largest entry is the prediction (B, K)."""
    noise = torch.rand(*predicted.shape, num_classes)
    return noise + 2 * torch.nn.functional.one_hot(predicted, num_classes)


@st.composite
def scored_sets(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Draw truth and predictions in which every one of the C classes occurs among the truth."""
    num_classes = draw(st.integers(2, 5))
    rest = draw(st.lists(st.integers(0, num_classes - 1), max_size=25))
    truth = draw(st.permutations([*range(num_classes), *rest]))
    size = len(truth)
    return truth, draw(st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size)), num_classes


@settings(max_examples=60, deadline=None)
@given(scored_sets())
def test_scores_are_those_of_scikit_learn_audmetric_and_torchmetrics(scored):
    truth, predicted, num_classes = scored
    counts = confusion(truth, predicted, num_classes)
    war, uar, f1 = (score(counts).item() for score in (weighted_average_recall, unweighted_average_recall, macro_f1))
    assert war == pytest.approx(accuracy_score(truth, predicted))
    assert war == pytest.approx(recall_score(truth, predicted, average="weighted"))
    assert war == pytest.approx(audmetric.accuracy(truth, predicted))
    assert uar == pytest.approx(recall_score(truth, predicted, average="macro"))
    assert uar == pytest.approx(audmetric.unweighted_average_recall(truth, predicted))
    assert f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert f1 == pytest.approx(audmetric.unweighted_average_fscore(truth, predicted))
    pair = torch.tensor(predicted), torch.tensor(truth)
    assert war == pytest.approx(MulticlassAccuracy(num_classes, average="micro")(*pair).item(), abs=1e-6)
    assert uar == pytest.approx(MulticlassRecall(num_classes, average="macro")(*pair).item(), abs=1e-6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_a_class_without_truth_has_no_recall_even_if_it_is_predicted():
    """torchmetrics would count it as 0 here: 0.625 instead of 0.833 with four classes."""
    truth, predicted = [0, 1, 1, 2, 2, 2, 2, 2], [0, 1, 3, 2, 2, 2, 2, 2]
    uar = unweighted_average_recall(confusion(truth, predicted, 4)).item()
    assert uar == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert uar == pytest.approx(balanced_accuracy_score(truth, predicted))
    other = MulticlassRecall(4, average="macro")(torch.tensor(predicted), torch.tensor(truth))
    assert other.item() == pytest.approx((1 + 1 / 2 + 1 + 0) / 4)


def test_a_class_without_truth_and_predictions_changes_nothing():
    small, large = confusion([0, 1, 1], [0, 1, 0], 2), confusion([0, 1, 1], [0, 1, 0], 5)
    for score in (weighted_average_recall, unweighted_average_recall, macro_f1):
        assert score(small).item() == pytest.approx(score(large).item())


def test_f1_counts_a_class_that_is_predicted_without_truth_as_zero():
    truth, predicted = [0, 0, 1, 1], [0, 0, 1, 2]
    f1 = macro_f1(confusion(truth, predicted, 4)).item()
    assert f1 == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert f1 == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_nothing_scored_is_nan():
    for score in (weighted_average_recall, unweighted_average_recall, macro_f1):
        assert score(torch.zeros(3, 3)).isnan()


def test_leading_dimensions_are_scored_one_by_one():
    counts = torch.randint(1, 20, (4, 3, 3))
    for score in (weighted_average_recall, unweighted_average_recall, macro_f1):
        torch.testing.assert_close(score(counts), torch.stack([score(c) for c in counts]))


def test_every_condition_is_scored_by_its_own_predictions():
    torch.manual_seed(0)
    truth, predicted = torch.arange(60) % 4, torch.randint(4, (60, 3))
    metrics = ConditionMetrics(AUDIO_TEXT, num_classes=4)
    metrics.update(logits_for(predicted, 4), truth)
    values = metrics.compute()
    for k, name in enumerate(("audio", "text", "audio+text")):
        pair = truth.numpy(), predicted[:, k].numpy()
        assert values[f"war/{name}"].item() == pytest.approx(accuracy_score(*pair))
        assert values[f"uar/{name}"].item() == pytest.approx(recall_score(*pair, average="macro"))
        assert values[f"f1/{name}"].item() == pytest.approx(f1_score(*pair, average="macro"))
    for key in ("war", "uar", "f1"):
        incomplete = [values[f"{key}/{name}"].item() for name in ("audio", "text")]
        assert values[f"{key}_missing_mean"].item() == pytest.approx(np.mean(incomplete))
    assert len(values) == 3 * 4


def test_confusion_counts_have_the_truth_in_rows():
    metrics = ConditionMetrics([("audio",)], num_classes=3)
    metrics.update(logits_for(torch.tensor([[2], [2], [1]]), 3), torch.tensor([0, 0, 1]))
    assert metrics.confusion.tolist() == [[[0, 0, 2], [0, 1, 0], [0, 0, 0]]]


def test_a_single_condition_has_no_mean_over_incomplete_ones():
    metrics = ConditionMetrics([("audio",)], num_classes=2)
    metrics.update(torch.randn(5, 1, 2), torch.tensor([0, 1, 0, 1, 1]))
    assert set(metrics.compute()) == {"war/audio", "uar/audio", "f1/audio"}


def test_updates_by_batch_equal_one_update():
    torch.manual_seed(0)
    truth, logits = torch.arange(50) % 4, torch.randn(50, 3, 4)
    whole, parts = (ConditionMetrics(AUDIO_TEXT, num_classes=4) for _ in range(2))
    whole.update(logits, truth)
    for rows in torch.randperm(50).split([7, 20, 1, 0, 22]):
        parts.update(logits[rows], truth[rows])
    assert torch.equal(parts.confusion, whole.confusion)
    assert whole.confusion.sum() == 50 * 3


def test_uar_is_not_the_mean_of_the_batches():
    """Two batches with different shares of the classes: 3/4 over the set, 7/12 averaged over the batches."""
    batches = [([0, 0, 0, 1], [0, 0, 0, 1]), ([0, 1, 1, 1], [1, 1, 0, 0])]
    metrics, per_batch = ConditionMetrics([("audio",)], num_classes=2), []
    for truth, predicted in batches:
        logits = logits_for(torch.tensor(predicted).unsqueeze(1), 2)
        metrics.update(logits, torch.tensor(truth))
        per_batch.append(unweighted_average_recall(confusion(truth, predicted, 2)).item())
    assert metrics.compute()["uar/audio"].item() == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert np.mean(per_batch) == pytest.approx((1 + (0 + 1 / 3) / 2) / 2)
    assert metrics.compute()["uar/audio"].item() != pytest.approx(np.mean(per_batch))


def test_rows_without_a_label_are_not_counted():
    torch.manual_seed(0)
    truth, logits = torch.tensor([0, -1, 2, 1, -1]), torch.randn(5, 3, 3)
    some, kept = (ConditionMetrics(AUDIO_TEXT, num_classes=3) for _ in range(2))
    some.update(logits, truth)
    kept.update(logits[truth >= 0], truth[truth >= 0])
    assert torch.equal(some.confusion, kept.confusion)
    some.update(logits, torch.full((5,), -1))
    assert torch.equal(some.confusion, kept.confusion)


@pytest.mark.parametrize("label", [3, 4, 100])
def test_a_label_out_of_range_is_never_counted_as_another(label):
    metrics = ConditionMetrics(AUDIO_TEXT, num_classes=3)
    with pytest.raises(RuntimeError):
        metrics.update(torch.randn(2, 3, 3), torch.tensor([0, label]))
    assert metrics.confusion.sum() == 0


def test_states_of_two_processes_are_summed():
    torch.manual_seed(0)
    truth, logits = torch.arange(30) % 3, torch.randn(30, 3, 3)
    whole, first, second = (ConditionMetrics(AUDIO_TEXT, num_classes=3) for _ in range(3))
    whole.update(logits, truth)
    first.update(logits[:13], truth[:13])
    second.update(logits[13:], truth[13:])
    first.merge_state(second)
    for key, value in whole.compute().items():
        assert first.compute()[key] == value


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric ConditionMetrics was called before")
def test_reset_forgets():
    metrics = ConditionMetrics(AUDIO_TEXT, num_classes=3)
    metrics.update(torch.randn(4, 3, 3), torch.tensor([0, 1, 2, 0]))
    metrics.reset()
    assert metrics.confusion.sum() == 0
    assert metrics.compute()["uar/audio"].isnan()
