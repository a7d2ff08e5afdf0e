"""Fusion baselines as a LightningModule: imputation, and modality dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.losses.classification import condition_cross_entropy
from cmarr_lightning.models.fusion import FusionNetwork, Imputation
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.tasks.base import EmotionTask
from cmarr_lightning.tasks.epoch_means import EpochMeans

__all__ = ["FusionTask"]


class FusionTask(EmotionTask):
    """What a practitioner would do first, with the encoders and the recipe of CM-ARR.

    * Zero and mean imputation: trained on complete data, imputed in evaluation (`train_conditions: complete`).
    * Modality dropout: trained with what is missing imputed (`train_conditions: drawn`, or `all`).

    Logged per training epoch: `train/loss`. For validation and test see `EmotionTask`.

    Args:
        modalities: M names in the order of the data; linked from the data module by the command line.
        feature_dims: D per modality; linked.
        class_names: C names in the order of their index; linked.
        imputation: `zero` in the unit of the features, or the `mean` of the training rows.
        train_conditions: `complete`: each utterance with everything that it has; `drawn`: under the condition drawn for
            it by the data module; `all`: under every condition.
        embed_dim: E.
        encoder_hidden_dim: Width of a hidden layer in the encoders; None leaves it out.
        encoder_dropout: In the encoders, shared by the frames of an utterance.
        input_dropout: Of the scaled features, shared by the frames of an utterance; one for all modalities, or by
            name: `{audio: 0.1, text: 0.4}`. Wide embeddings bear more than a few statistics.
        head_dropout: In the classifier.
        label_smoothing: Of the cross-entropy.
        learning_rate: Peak of AdamW's learning rate.
        weight_decay: Of the weight matrices.
        warmup_fraction: Part of all steps over which the rate rises.
        balance_classes: Exponent of the inverse class frequencies in the cross-entropy.
    """

    def __init__(
        self,
        modalities: list[str],
        feature_dims: dict[str, int],
        class_names: list[str],
        imputation: Imputation = "zero",
        train_conditions: Literal["complete", "drawn", "all"] = "complete",
        embed_dim: int = 128,
        encoder_hidden_dim: int | None = None,
        encoder_dropout: float = 0.1,
        input_dropout: float | dict[str, float] = 0.0,
        head_dropout: float = 0.5,
        label_smoothing: float = 0.1,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.05,
        balance_classes: float = 0.75,
    ) -> None:
        super().__init__(
            modalities,
            feature_dims,
            class_names,
            learning_rate,
            weight_decay,
            warmup_fraction,
            balance_classes,
        )
        self.save_hyperparameters()
        self.train_conditions = train_conditions
        self.label_smoothing = label_smoothing
        self.network = FusionNetwork(
            self.feature_dims,
            len(class_names),
            imputation,
            embed_dim=embed_dim,
            encoder_hidden_dim=encoder_hidden_dim,
            encoder_dropout=encoder_dropout,
            input_dropout=input_dropout,
            head_dropout=head_dropout,
        )
        self._means = EpochMeans()

    @classmethod
    def method_name(cls, settings: Mapping[str, Any]) -> str:
        """Name the method in tables."""
        if settings.get("train_conditions", "complete") == "complete":
            return f"{settings.get('imputation', 'zero')} imputation"
        return "modality dropout"

    def scalers(self) -> dict[str, FeatureScaler]:
        """Return the network's scalers."""
        return {m: cast(FeatureScaler, self.network.scaler[m]) for m in self.modalities}

    def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return logits (B, K, C) under present (B, K, M)."""
        logits: Tensor = self.network(batch.features, batch.padding_mask, present)
        return logits

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """Minimise the cross-entropy under the conditions of training."""
        present = self.training_conditions(batch)
        logits = self.network_logits(batch, present)
        usable = present.any(dim=-1)
        loss = condition_cross_entropy(logits, batch.labels, usable, self.class_weight, self.label_smoothing)
        self._means.add({"loss": loss}, len(batch))
        return loss

    def training_conditions(self, batch: MultimodalBatch) -> Tensor:
        """Return present (B, K, M) bool of a training step."""
        if self.train_conditions == "complete":
            return batch.observed.unsqueeze(1)
        return batch.drawn.unsqueeze(1) if self.train_conditions == "drawn" else self.present(batch)

    def on_train_epoch_end(self) -> None:
        """Log the mean over the epoch."""
        self.log_dict({f"train/{name}": mean for name, mean in self._means.take().items()})
