"""What MMIN, IF-MMIN and NMER have in common: options, recipes, and the steps of both stages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.errors import InputError
from cmarr_lightning.losses.classification import condition_cross_entropy
from cmarr_lightning.models.two_stage import CompleteOutput, EncoderOptions, TwoStageNetwork
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.nn.utterance_encoders import EncoderName, Padding, choose_encoders
from cmarr_lightning.tasks.epoch_means import EpochMeans
from cmarr_lightning.tasks.recipes import RECIPES, RecipeName, StageSteps, published_stages, shared_stages
from cmarr_lightning.tasks.teaching import TaughtTask

__all__ = ["Terms", "TwoStageTask"]

Terms: TypeAlias = dict[str, tuple[float, Tensor]]
"""Weight and value of every term of a loss, by name."""


class TwoStageTask(TaughtTask):
    """Base of the peers: a subclass gives the network and the losses of stage 2.

    Stage 1 trains the teacher on everything that an utterance has, without noise. Its epoch of the highest UAR on the
    complete validation rows teaches; without validation the last one. Stage 2 starts from its encoders, with the
    teacher frozen, and is all that is tested and kept: during stage 1 `val/uar_missing_mean` is logged as NaN, which
    any epoch of stage 2 surpasses.

    Logged per training epoch: `train/loss` and its terms `train/loss_<term>` (unweighted); in validation of stage 1
    `val/stage1_war` and `val/stage1_uar`, both on complete data. For the rest see `EmotionTask`.

    Args:
        modalities: M names in the order of the data; linked from the data module by the command line.
        feature_dims: D per modality; linked.
        class_names: C names in the order of their index; linked.
        feature_kinds: `sequence` or `vector` per modality; linked.
        stage1_epochs: Epochs of stage 1; those of stage 2 are the rest of trainer.max_epochs. 0 leaves the teacher
            as it was initialised, which serves to measure the speed of stage 2 and nothing else.
        recipe: `published`: Adam (momentum 0.9, in stage 2 0.5), gradients clipped per part of the network
            (norm 0.5, in stage 2 1; trainer.gradient_clip_val is not used), the second half of the epochs of each
            stage with a linearly falling rate, one incomplete condition per utterance and step. `shared`: that of
            CM-ARR (AdamW, half cosine, class weights, label smoothing, averaged weights; vectors are read as by
            CM-ARR).
        train_conditions: Of stage 2 in the shared recipe, as for `CMARRTask`: `all`, or `drawn`: the complete one and
            the one drawn.
        encoders: Per modality `lstm`, `textcnn`, `mlp` or `norm_mlp` where it shall not be chosen by the features:
            for utterance vectors `mlp` in the published recipe and `norm_mlp`, which has CM-ARR's layers, in the
            shared one; `textcnn` for the sequence named text, `lstm` for other sequences.
        embed_dim: E.
        encoder_hidden_dim: Width of the hidden layer of `mlp` and `norm_mlp`.
        encoder_dropout: In `textcnn`, `mlp` and `norm_mlp`.
        input_dropout: Of the scaled features, shared by the frames of an utterance; one for all modalities, or by
            name: `{audio: 0.1, text: 0.4}`. Wide embeddings bear more than a few statistics.
        padding: `invariant` leaves padded frames out; `released` reads them as zeros, as the released programs do, so
            that a prediction depends on its batch mates.
        learning_rate: Peak; by default the recipe's, 2e-4 or 2e-3. 2e-4 is too low for utterance vectors; see
            docs/peers.md.
        weight_decay: Of AdamW in the shared recipe; by default 1e-2.
        warmup_fraction: Part of the steps of each stage over which the rate rises in the shared recipe.
        balance_classes: Exponent of the inverse class frequencies; by default the recipe's, 0 or 0.75.
        label_smoothing: Of the cross-entropy; by default the recipe's, 0 or 0.1.
    """

    network: TwoStageNetwork
    bounded_vectors = True
    """Whether the embeddings of utterance vectors stay below 1 as those of sequences; see `MLPEncoder`."""

    def __init__(
        self,
        modalities: list[str],
        feature_dims: dict[str, int],
        class_names: list[str],
        feature_kinds: dict[str, str],
        stage1_epochs: int = 20,
        recipe: RecipeName = "published",
        train_conditions: Literal["all", "drawn"] = "all",
        encoders: dict[str, EncoderName] | None = None,
        embed_dim: int = 128,
        encoder_hidden_dim: int = 128,
        encoder_dropout: float = 0.5,
        input_dropout: float | dict[str, float] = 0.0,
        padding: Padding = "invariant",
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        warmup_fraction: float = 0.05,
        balance_classes: float | None = None,
        label_smoothing: float | None = None,
    ) -> None:
        defaults = RECIPES[recipe]
        super().__init__(
            modalities,
            feature_dims,
            class_names,
            defaults.learning_rate if learning_rate is None else learning_rate,
            defaults.weight_decay if weight_decay is None else weight_decay,
            warmup_fraction,
            defaults.balance_classes if balance_classes is None else balance_classes,
            stage1_epochs,
        )
        self.save_hyperparameters()
        if recipe == "published" and weight_decay:
            raise InputError("model.weight_decay: the published recipe decays no weights", remedy="use recipe=shared")
        if unknown := sorted(set(encoders or {}) - set(modalities)):
            raise InputError(
                f"model.encoders names {unknown[0]!r}, which is no modality of the data",
                remedy=f"use {', '.join(modalities)}",
            )
        self.recipe: RecipeName = recipe
        self.average_decay = defaults.average_decay
        self.train_conditions = train_conditions
        self.label_smoothing = defaults.label_smoothing if label_smoothing is None else label_smoothing
        self.encoder_options = EncoderOptions(
            encoders=choose_encoders({m: feature_kinds[m] for m in modalities}, encoders, defaults.vector_encoder),
            embed_dim=embed_dim,
            hidden_dim=encoder_hidden_dim,
            dropout=encoder_dropout,
            input_dropout=input_dropout,
            bounded=self.bounded_vectors,
            padding=padding,
        )
        self._means = EpochMeans()

    # -- what a method gives --------------------------------------------------------------------------------

    @classmethod
    def method_name(cls, settings: Mapping[str, Any]) -> str:
        """Name the method in tables, and its recipe where that is not the published one."""
        name = super().method_name(settings)
        return f"{name} (shared recipe)" if settings.get("recipe") == "shared" else name

    @abstractmethod
    def student_terms(
        self, features: dict[str, Tensor], clean: dict[str, Tensor], batch: MultimodalBatch, present: Tensor
    ) -> Terms:
        """Return the loss of stage 2 under present (B, K, M) bool.

        Args:
            features: Scaled, with noise if the data have any.
            clean: The same without noise, which the teacher reads.
            batch: Where they come from.
            present: What the student may read.
        """

    def teacher_terms(self, output: CompleteOutput, batch: MultimodalBatch) -> Terms:
        """Return the loss of stage 1."""
        return {"cls": (1.0, self.cross_entropy(output.logits.unsqueeze(1), batch, batch.observed.unsqueeze(1)))}

    # -- steps ----------------------------------------------------------------------------------------------

    def scalers(self) -> dict[str, FeatureScaler]:
        """Return the network's scalers."""
        return {m: cast(FeatureScaler, self.network.scaler[m]) for m in self.modalities}

    def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return the student's logits (B, K, C) under present (B, K, M)."""
        logits: Tensor = self.network(batch.features, batch.padding_mask, present)
        return logits

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """Minimise the loss of the stage."""
        clean = self.network.scale(batch.clean or batch.features, batch.padding_mask)
        if self.stage == 1:
            terms = self.teacher_terms(self.network.teacher(clean, batch.padding_mask, batch.observed), batch)
        else:
            noisy = clean if batch.clean is None else self.network.scale(batch.features, batch.padding_mask)
            terms = self.student_terms(noisy, clean, batch, self.training_conditions(batch))
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        self._means.add({"loss": loss} | {f"loss_{name}": value for name, (_, value) in terms.items()}, len(batch))
        return loss

    def training_conditions(self, batch: MultimodalBatch) -> Tensor:
        """Return present (B, K, M) bool of a step of stage 2."""
        if self.recipe == "published":
            return batch.drawn.unsqueeze(1)
        if self.train_conditions == "drawn":
            return torch.stack([batch.observed, batch.drawn], dim=1)
        return self.present(batch)

    def cross_entropy(self, logits: Tensor, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return the mean over the conditions, in nats; logits (B, K, C), present (B, K, M)."""
        usable = present.any(dim=-1)
        return condition_cross_entropy(logits, batch.labels, usable, self.class_weight, self.label_smoothing)

    def known(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return (B, K, M) bool: whether the teacher knows what the student shall imagine."""
        return batch.observed.unsqueeze(1) & present.any(dim=-1, keepdim=True)

    def on_train_epoch_end(self) -> None:
        """Log the means over the epoch."""
        self.log_dict({f"train/{name}": mean for name, mean in self._means.take().items()})

    # -- set-up ---------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse data that the published recipe was not made for, and a strategy that waits for all gradients."""
        strategy = self.trainer.strategy
        waits = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if stage == "fit" and waits:
            raise InputError(
                "trainer.strategy waits for the gradients of all parameters, but a stage trains one of two networks",
                remedy="set trainer.strategy to ddp_find_unused_parameters_true",
            )
        super().setup(stage)
        if stage == "fit" and self.recipe == "published" and cast(Any, self.trainer).datamodule.draw != "incomplete":
            raise InputError(
                "the published recipe trains stage 2 on incomplete conditions only, but data.draw is all",
                remedy="set data.draw to incomplete, or model.recipe to shared",
            )

    # -- optimisation ---------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """One optimiser for both stages: parameters without gradients are not touched, so each stage has its own.

        Raises:
            InputError: No step is left for stage 2.
        """
        batches = cast(int, self.trainer.num_training_batches) if self.total_steps() else 0
        per_epoch = max(1, -(-batches // self.trainer.accumulate_grad_batches))
        first, total = self.stage1_epochs * per_epoch, self.total_steps()
        if first >= total:
            raise InputError(
                f"model.stage1_epochs is {self.stage1_epochs}, which leaves nothing of the training to stage 2",
                remedy="set trainer.max_epochs to the epochs of both stages together",
            )
        parts, steps = (self.network.teacher, self.network.student), StageSteps(per_epoch, first, total)
        if self.recipe == "published":
            optimizer, factors = published_stages(*parts, steps, self.learning_rate, fused=self.fused())
        else:
            optimizer, factors = shared_stages(
                *parts, steps, self.learning_rate, self.weight_decay, self.warmup_fraction, fused=self.fused()
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip every part of the network by itself in the published recipe, otherwise as the trainer says."""
        if self.recipe == "published":
            for part in self.network.subnetworks():
                torch.nn.utils.clip_grad_norm_(part.parameters(), 0.5 if self.stage == 1 else 1.0)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
