"""CM-ARR as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from cmarr_lightning.batch import MultimodalBatch
from cmarr_lightning.errors import InputError
from cmarr_lightning.losses.total import CMARRLoss
from cmarr_lightning.models.cmarr import Aggregation, Alignment, CMARRNetwork, Reconstruction
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.outputs import CMARROutput, LossTerms
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["CMARRTask"]


class CMARRTask(EmotionTask):
    """Cross-modal alignment, reconstruction and refinement (Sun et al., 2025).

    Each training step encodes every utterance once and trains it under several conditions.

    Logged per training epoch: `train/loss` and its terms `train/loss_cls`, `_align`, `_recon`, `_nll`, `_refine`
    (unweighted); once per epoch `train/flow_roundtrip_error`, the largest |u - F^-1(F(u))| of a batch;
    `train/sigma`, the mean standard deviation of the Gaussians of that batch; `train/temperature` of the alignment.
    For validation and test see `EmotionTask`.

    Args:
        modalities: M names in the order of the data; linked from the data module by the command line.
        feature_dims: D per modality; linked.
        class_names: C names in the order of their index; linked.
        embed_dim: E.
        num_heads: Attention heads of the uncertainty modelling component.
        flow_steps: Coupling steps per flow.
        encoder_hidden_dim: Width of a hidden layer in the encoders; None (default) leaves it out. It pays on
            utterance vectors (512 in `experiments/reproduce`); on frames it multiplies the cost.
        encoder_dropout: In the encoders, shared by the frames of an utterance.
        input_dropout: Of the scaled features, shared by the frames of an utterance; one for all modalities, or by
            name: `{audio: 0.1, text: 0.4}`. Wide embeddings bear more than a few statistics.
        umc_dropout: In the MLPs of the uncertainty modelling component.
        head_dropout: In the classifier.
        weight_align: Weight of the alignment loss.
        weight_recon: Weight of the reconstruction loss.
        weight_nll: Weight of the likelihood within the reconstruction loss.
        weight_mse: Weight of the error of the reconstructions within it.
        weight_refine: Weight of the refinement loss.
        label_smoothing: Of the cross-entropy.
        train_conditions: `all` trains every utterance under every condition at each step; `drawn` under the
            complete one and the one drawn for it by the data module (cheaper with many modalities).
        schedule: `joint` minimises all losses from the start, reconstruction and refinement rising over the first
            tenth of the steps. `staged` trains alignment and the classifier on complete data for a fifth of the
            steps, then only the flows for a fifth, then everything.
        learning_rate: Peak of AdamW's learning rate.
        weight_decay: Of the weight matrices.
        warmup_fraction: Part of all steps over which the rate rises.
        balance_classes: Exponent of the inverse class frequencies in the cross-entropy.
        alignment: `distribution` contrasts Gaussians by their 2-Wasserstein distance and trains on samples of them;
            `points` contrasts their means by the cosine and trains on the means.
        reconstruction: `flow`, or what stands in for a missing modality without flows: `zeros`, the `mean` of the
            embeddings that are present, or a `regressor` from that mean.
        aggregation: What becomes of several present modalities: the `mean` of their latents; their mean weighted by
            `precision`; or `invert_then_mean`, the mean of what each of them recovers alone.

    Raises:
        InputError: Options that exclude each other.
    """

    title = "CM-ARR"

    def __init__(
        self,
        modalities: list[str],
        feature_dims: dict[str, int],
        class_names: list[str],
        embed_dim: int = 128,
        num_heads: int = 8,
        flow_steps: int = 3,
        encoder_hidden_dim: int | None = None,
        encoder_dropout: float = 0.1,
        input_dropout: float | dict[str, float] = 0.0,
        umc_dropout: float = 0.1,
        head_dropout: float = 0.5,
        weight_align: float = 0.5,
        weight_recon: float = 0.1,
        weight_nll: float = 1.0,
        weight_refine: float = 0.1,
        label_smoothing: float = 0.1,
        train_conditions: Literal["all", "drawn"] = "all",
        schedule: Literal["joint", "staged"] = "joint",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.05,
        balance_classes: float = 0.75,
        weight_mse: float = 1.0,
        alignment: Alignment = "distribution",
        reconstruction: Reconstruction = "flow",
        aggregation: Aggregation = "mean",
    ) -> None:
        if schedule == "staged" and reconstruction != "flow":
            raise InputError(
                f"schedule=staged with reconstruction={reconstruction}: no flows to train in the second stage",
                remedy="use schedule=joint",
            )
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
        self.schedule = schedule
        self.reconstruction = reconstruction
        self.network = CMARRNetwork(
            self.feature_dims,
            len(class_names),
            embed_dim=embed_dim,
            num_heads=num_heads,
            flow_steps=flow_steps,
            encoder_hidden_dim=encoder_hidden_dim,
            encoder_dropout=encoder_dropout,
            input_dropout=input_dropout,
            umc_dropout=umc_dropout,
            head_dropout=head_dropout,
            alignment=alignment,
            reconstruction=reconstruction,
            aggregation=aggregation,
        )
        self.loss = CMARRLoss(
            weight_align, weight_recon, weight_nll, weight_refine, label_smoothing, weight_mse=weight_mse
        )
        self._epoch_terms: list[tuple[Tensor, int]] = []
        self._round_trip_error = torch.tensor(0.0)
        self._sigma = torch.tensor(0.0)

    def scalers(self) -> dict[str, FeatureScaler]:
        """Return the network's scalers."""
        return {m: cast(FeatureScaler, self.network.scaler[m]) for m in self.modalities}

    def network_logits(self, batch: MultimodalBatch, present: Tensor) -> Tensor:
        """Return logits (B, K, C) under present (B, K, M)."""
        output: CMARROutput = self.network(batch.features, batch.padding_mask, present)
        return output.logits

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """Minimise the CM-ARR objective of the global batch."""
        present = self.training_conditions(batch)
        refined = (present == batch.drawn.unsqueeze(1)).all(dim=-1).int().argmax(dim=1)  # the condition drawn
        output: CMARROutput = self.network(batch.features, batch.padding_mask, present, refined)
        gather = self.gather()
        terms: LossTerms = self.loss(
            output.map(gather),
            gather(batch.observed),
            gather(batch.labels),
            class_weight=self.class_weight,
            ramp=self.ramp(),
        )
        loss = terms.total
        if self.phase() == "flows":
            loss = self.loss.reconstruction(terms.recon, terms.nll) + 0.0 * terms.total
        self._note(terms, loss, len(batch))
        if batch_idx == 0:
            self._round_trip_error = self.network.round_trip_error(output.embeddings.detach())
            self._sigma = output.log_std[batch.observed].detach().exp().mean()
        return loss

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self._epoch_terms = []

    def on_train_epoch_end(self) -> None:
        """Log the means over the epoch. Logging them at every step would cost more than the losses themselves."""
        if not self._epoch_terms:  # resumed at the end of an epoch
            return
        values, sizes = zip(*self._epoch_terms, strict=True)
        weight = torch.tensor(sizes, device=values[0].device, dtype=values[0].dtype)
        means = weight @ torch.stack(values) / weight.sum()
        names = ("loss", *(f"loss_{name}" for name in LossTerms._fields[1:]))
        self.log("train/loss", means[0], prog_bar=True)
        self.log_dict({f"train/{name}": mean for name, mean in zip(names[1:], means[1:], strict=True)})
        if self.reconstruction == "flow":
            self.log("train/flow_roundtrip_error", self._round_trip_error)
        self.log("train/sigma", self._sigma)
        self.log("train/temperature", self.loss.align.temperature)

    def training_conditions(self, batch: MultimodalBatch) -> Tensor:
        """Return present (B, K, M) bool of a training step; the condition drawn for an utterance is among them."""
        if self.phase() == "align":
            return batch.observed.unsqueeze(1)
        if self.train_conditions == "drawn":
            return torch.stack([batch.observed, batch.drawn], dim=1)
        return self.present(batch)

    def phase(self) -> Literal["align", "flows", "joint"]:
        """Return what is trained now; always `joint` in the joint schedule."""
        if self.schedule == "joint" or self.progress() >= 0.4:
            return "joint"
        return "align" if self.progress() < 0.2 else "flows"

    def ramp(self) -> float:
        """Return the factor on reconstruction and refinement: alignment comes first."""
        if self.schedule == "staged":
            return 0.0 if self.phase() == "align" else 1.0
        return min(1.0, 10 * self.progress())

    def gather(self) -> Callable[[Tensor], Tensor]:
        """Return what joins the rows of all processes, with gradients.

        Every process then computes the loss of the same global batch. The gradient of a row is summed over the W
        processes by the gather and divided by W by DDP's average: equal to one process with the whole batch.
        """
        if self.trainer.world_size == 1:
            return lambda tensor: tensor
        return partial(_gather_rows, cast(Callable[..., Tensor], self.all_gather))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep what a phase does not train as it is: no decay, no momentum either."""
        phase = self.phase()
        for name, parameter in self.named_parameters():
            trained_later = name.startswith(("network.flow.", "network.projection."))
            if (phase == "align" and trained_later) or (phase == "flows" and not name.startswith("network.flow.")):
                parameter.grad = None

    def _note(self, terms: LossTerms, loss: Tensor, size: int) -> None:
        """Keep what `on_train_epoch_end` averages."""
        self._epoch_terms.append((torch.stack([loss, *terms[1:]]).detach(), size))


def _gather_rows(all_gather: Callable[..., Tensor], tensor: Tensor) -> Tensor:
    """Join (B, ...) of all processes as (W B, ...).

    Gathered flat: in torch 2.13 the gather's backward puts the entries of a gradient that is not contiguous, such as
    that of transposed logits, in the wrong places.
    """
    gathered: Tensor = all_gather(tensor.flatten(), sync_grads=tensor.requires_grad)
    return gathered.reshape(-1, *tensor.shape[1:])
