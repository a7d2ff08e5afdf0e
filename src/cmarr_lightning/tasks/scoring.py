"""Scores of a method under all conditions, on clean features and on noisy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.errors import InputError
from cmarr_lightning.metrics import ConditionMetrics
from cmarr_lightning.modalities import all_conditions, condition_name, condition_table

__all__ = ["AVAILABLE", "ScoredModule"]

AVAILABLE = "available"
"""Name of the condition in which each utterance has whatever it has on disk."""


class ScoredModule(LightningModule):
    """Evaluation, test and prediction of whatever gives `network_logits`.

    Every utterance is scored under **every** condition in one pass. Utterances that lack a modality on disk cannot be
    scored under all of them; so that all conditions are scored on the same rows, they count only in the extra
    condition `available`. The test does the same once more for every noise of the data (`data.test_noise`).

    Logged (`val/` or `test/`): `war/<condition>`, `uar/<condition>`, `f1/<condition>` and `war_missing_mean`,
    `uar_missing_mean`, `f1_missing_mean`: the means over the incomplete conditions; in the test with noise
    `test/uar/<condition>@<noise>` and so on.

    Args:
        modalities: M names in the order of the data.
        class_names: C names in the order of their index.
    """

    condition_table: Tensor

    def __init__(self, modalities: Sequence[str], class_names: Sequence[str]) -> None:
        super().__init__()
        self.modalities = list(modalities)
        self.class_names = list(class_names)
        self.conditions = all_conditions(modalities)
        self.scored = ConditionMetrics(self.conditions, len(class_names))
        self.scored_available = ConditionMetrics([(AVAILABLE,)], len(class_names))
        self.scored_noisy = nn.ModuleList()
        self.noises: list[str] = []
        self.register_buffer("condition_table", condition_table(modalities), persistent=False)

    def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return logits (B, K, C) of a batch under present (B, K, M) bool. Reads nothing that is not present."""
        raise NotImplementedError(f"{type(self).__name__} must define network_logits")

    def present(self, batch: MultimodalBatch) -> Tensor:
        """Return (B, K, M) bool: what is present under every condition, given what is on disk."""
        return self.condition_table.unsqueeze(0) & batch.observed.unsqueeze(1)

    # -- evaluation -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Count for every noise of the test."""
        noises = getattr(getattr(self.trainer, "datamodule", None), "test_noise", []) if stage == "test" else []
        self.noises = [noise.name for noise in noises]
        self.scored_noisy = nn.ModuleList(ConditionMetrics(self.conditions, len(self.class_names)) for _ in noises)

    def validation_step(self, batch: MultimodalBatch, batch_idx: int) -> None:
        """Score a batch under every condition."""
        self._score(batch)

    def test_step(self, batch: MultimodalBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Score a batch under every condition; return what `predict_step` does. Loaders after the first are noisy."""
        if not dataloader_idx:
            return self._prediction(batch, self._score(batch))
        logits = self.network_logits(batch, self.present(batch))
        scored = cast(ConditionMetrics, self.scored_noisy[dataloader_idx - 1])
        scored.update(logits, self._complete_labels(batch))
        return self._prediction(batch, logits)

    def on_validation_epoch_start(self) -> None:
        """Forget the counts of the epoch before."""
        self._reset_scores()

    def on_test_epoch_start(self) -> None:
        """Forget the counts of the run before."""
        self._reset_scores()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation set."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test set."""
        self._log_scores("test")

    def _score(self, batch: MultimodalBatch) -> Tensor:
        logits = self.network_logits(batch, self.present(batch))
        self.scored.update(logits, self._complete_labels(batch))
        self.scored_available.update(logits[:, -1:], batch.labels.masked_fill(batch.repeated, -1))
        return logits

    def _complete_labels(self, batch: MultimodalBatch) -> Tensor:
        """Return the labels (B,) of the rows that can be scored under all conditions, -1 for the others."""
        return batch.labels.masked_fill(batch.repeated | ~batch.observed.all(dim=1), -1)

    def confusions(self) -> tuple[Tensor, Tensor]:
        """Return the counts of all processes: (K, C, C) of the conditions and (1, C, C) of `available`."""
        mine = (self.scored.confusion, self.scored_available.confusion)
        total, available = (self.trainer.strategy.reduce(counts.clone(), reduce_op="sum") for counts in mine)
        return torch.as_tensor(total), torch.as_tensor(available)

    def noisy_confusions(self) -> dict[str, Tensor]:
        """Return the counts (K, C, C) of all processes for each noise of the test, by its name."""
        counts = [cast(ConditionMetrics, scored).confusion.clone() for scored in self.scored_noisy]
        total = [torch.as_tensor(self.trainer.strategy.reduce(each, reduce_op="sum")) for each in counts]
        return dict(zip(self.noises, total, strict=True))

    def _reset_scores(self) -> None:
        for scored in (self.scored, self.scored_available, *self.scored_noisy):
            cast(ConditionMetrics, scored).reset()

    def _log_scores(self, prefix: Literal["val", "test"]) -> None:
        values = self.scored.compute()
        available = self.scored_available.compute()
        broken = sum(cast(ConditionMetrics, scored).broken for scored in (self.scored, *self.scored_noisy))
        if self.trainer.strategy.reduce(broken, reduce_op="sum"):  # the same answer in all processes
            raise InputError(
                f"{prefix}: the logits are not finite, so that nothing can be scored: the training has diverged",
                remedy="lower the learning rate, or use more of trainer.precision",
            )
        if self.trainer.sanity_checking:
            return
        confusion, everything = self.confusions()
        if not confusion.any():
            raise self._nothing_complete(prefix)
        if everything.sum() > confusion[-1].sum():
            values |= available
        for noise, scored in zip(self.noises, self.scored_noisy, strict=True):
            noisy = cast(ConditionMetrics, scored).compute()
            values |= {f"{name}@{noise}": value for name, value in noisy.items()}
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()})

    def _nothing_complete(self, prefix: str) -> InputError:
        return InputError(
            f"{prefix}: no utterance has all of {', '.join(self.modalities)}, so that no row can be scored"
            " under every condition",
            remedy="leave out a modality with data.modalities",
        )

    # -- prediction -----------------------------------------------------------------------------------------

    def predict_step(self, batch: MultimodalBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return class probabilities under every condition.

        Returns:
            `rows` (B,), `repeated` (B,) bool, `observed` (B, M) bool, `usable` (B, K) bool: every modality of the
            condition is on disk, `probabilities` (B, K, C). Under the complete condition, the last one, an
            utterance is scored with whatever it has.
        """
        return self._prediction(batch, self.network_logits(batch, self.present(batch)))

    def _prediction(self, batch: MultimodalBatch, logits: Tensor) -> dict[str, Tensor]:
        absent = self.condition_table.unsqueeze(0) & ~batch.observed.unsqueeze(1)
        return {
            "rows": batch.rows,
            "repeated": batch.repeated,
            "observed": batch.observed,
            "usable": ~absent.any(dim=-1),
            "probabilities": logits.float().softmax(dim=-1),
        }

    @property
    def condition_names(self) -> list[str]:
        """Names of the K conditions, the complete one last."""
        return [condition_name(condition) for condition in self.conditions]
