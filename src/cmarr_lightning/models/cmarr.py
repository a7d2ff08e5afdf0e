"""The CM-ARR network: encode, align, reconstruct, refine, fuse; each utterance is encoded once for all conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmarr_lightning.modalities import per_modality
from cmarr_lightning.nn.encoders import FeatureEncoder
from cmarr_lightning.nn.flows import LatentFlow
from cmarr_lightning.nn.fusion import FusionClassifier
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.nn.substitutes import MeanSubstitute, RegressionSubstitute, ZeroSubstitute
from cmarr_lightning.nn.uncertainty import Gaussian, UncertaintyModelingComponent
from cmarr_lightning.outputs import CMARROutput

__all__ = ["Aggregation", "Alignment", "CMARRNetwork", "Reconstruction", "aggregate_latents"]

Alignment: TypeAlias = Literal["distribution", "points"]
Reconstruction: TypeAlias = Literal["flow", "zeros", "mean", "regressor"]
Aggregation: TypeAlias = Literal["mean", "precision", "invert_then_mean"]


def aggregate_latents(latents: Tensor, weight: Tensor) -> Tensor:
    r"""Average the latents of what is present: :math:`\bar z_A = \sum_{n \in A} w_n z_n / \sum_{n \in A} w_n`.

    Args:
        latents: (B, M, E).
        weight: (B, K, M), 0 where a modality is not present. The present ones together weigh at least 0.01; bool
            gives all of them the weight 1.

    Returns:
        (B, K, E) in float32 or wider, even under autocast; zeros where nothing is present.
    """
    dtype = torch.promote_types(latents.dtype, torch.float32)
    with torch.autocast(latents.device.type, enabled=False):  # rounded latents would not lead back to their points
        weight = weight.to(dtype)
        return weight @ latents.to(dtype) / weight.sum(dim=-1, keepdim=True).clamp_min(0.01)


class CMARRNetwork(nn.Module):
    r"""Cross-modal alignment, reconstruction and refinement for any number of modalities.

    For an utterance with the modalities :math:`A` present:

    .. math::
        N(\mu_m, \sigma_m^2) &= \mathrm{UMC}_m(\mathrm{Enc}_m(x_m)), \qquad u_m \sim N(\mu_m, \sigma_m^2)
            \;\text{(the mean in evaluation)} \\
        z_m &= F_m(u_m), \qquad \bar z_A = \mathrm{Agg}_{n \in A}\, z_n, \qquad
        \hat u_{m|A} = F_m^{-1}(\bar z_A) \\
        r_m &= u_m \text{ if } m \in A \text{ else } \hat u_{m|A}, \qquad
        \text{logits} = \mathrm{Fusion}(r_1, \dots, r_M)

    Args:
        feature_dims: D per modality name; the order of the names is the order of the M axis.
        num_classes: C.
        embed_dim: E.
        num_heads: Attention heads of the UMC.
        flow_steps: Coupling steps per flow.
        encoder_hidden_dim: Width of the encoders' hidden layer; None leaves it out.
        encoder_dropout: In the encoders.
        input_dropout: Of the scaled features; one for all modalities, or by name.
        umc_dropout: In the MLPs of the UMC.
        head_hidden_dim: Width of the classifier's hidden layer.
        head_dropout: In the classifier.
        projection_dim: P, width of the refinement head.
        alignment: `distribution`, or `points`: Gaussians without width, so that u = mu in training too and the
            Wasserstein distance compares the means alone.
        reconstruction: `flow`, or what to use in its place: `zeros`, the `mean` of the embeddings that are present,
            a `regressor` from that mean (`nn.substitutes`).
        aggregation: How Agg treats several present modalities. `mean`: of the latents. `precision`: the latents
            weigh :math:`1 / \operatorname{mean}_e \sigma_{n,e}^2`. `invert_then_mean`:
            :math:`\hat u_{m|A} = \operatorname{mean}_{n \in A} F_m^{-1}(z_n)`.

    Raises:
        ValueError: Points have no precision.

    References:
        Sun et al., 2025, https://arxiv.org/abs/2407.09029, Fig. 2. What the paper says, what is inferred and what
        we chose stands in docs/mathematics.md.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        num_classes: int,
        embed_dim: int = 128,
        num_heads: int = 8,
        flow_steps: int = 3,
        encoder_hidden_dim: int | None = None,
        encoder_dropout: float = 0.1,
        input_dropout: float | Mapping[str, float] = 0.0,
        umc_dropout: float = 0.1,
        head_hidden_dim: int = 128,
        head_dropout: float = 0.5,
        projection_dim: int = 64,
        alignment: Alignment = "distribution",
        reconstruction: Reconstruction = "flow",
        aggregation: Aggregation = "mean",
    ) -> None:
        super().__init__()
        if (alignment, aggregation) == ("points", "precision"):
            raise ValueError("aggregation=precision needs the variances that alignment=points does without")
        self.modalities = tuple(feature_dims)
        self.embed_dim = embed_dim
        self.alignment = alignment
        self.aggregation = aggregation
        self.scaler = nn.ModuleDict({m: FeatureScaler(dim) for m, dim in feature_dims.items()})
        dropped = per_modality("input_dropout", input_dropout, self.modalities)
        self.encoder = nn.ModuleDict(
            {
                m: FeatureEncoder(dim, embed_dim, encoder_hidden_dim, encoder_dropout, dropped[m])
                for m, dim in feature_dims.items()
            }
        )
        self.umc = nn.ModuleDict(
            {m: UncertaintyModelingComponent(embed_dim, num_heads, dropout=umc_dropout) for m in feature_dims}
        )
        self.flow = nn.ModuleDict({m: _make_flow(reconstruction, embed_dim, flow_steps) for m in feature_dims})
        self.classifier = FusionClassifier(len(feature_dims), embed_dim, num_classes, head_hidden_dim, head_dropout)
        self.projection = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, projection_dim)
        )

    def flow_of(self, modality: str) -> LatentFlow | MeanSubstitute:
        """Return the flow F_m of a modality, or what takes its place."""
        return cast("LatentFlow | MeanSubstitute", self.flow[modality])

    def encode(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor]) -> Gaussian:
        """Model every modality as a Gaussian, (B, M, E); rows without the modality hold values nobody reads."""
        gaussians = [
            self.umc[m](self.encoder[m](self.scaler[m](features[m])), padding_mask[m]) for m in self.modalities
        ]
        mean, log_std = (torch.stack(parts, dim=1) for parts in zip(*gaussians, strict=True))
        # A point is a Gaussian without width. Subtracting keeps log_std in the graph: DistributedDataParallel waits.
        return Gaussian(mean, log_std if self.alignment == "distribution" else log_std - torch.inf)

    def forward(
        self,
        features: Mapping[str, Tensor],
        padding_mask: Mapping[str, Tensor],
        present: Tensor,
        refined: Tensor | None = None,
    ) -> CMARROutput:
        """Run every utterance under K conditions.

        Args:
            features: Per modality (B, T, D), unscaled; NaN is read as the training mean.
            padding_mask: Per modality (B, T) bool, True = padding.
            present: (B, K, M) bool, True = present. What is False is never read. Under a condition with nothing
                present the outputs carry no information.
            refined: (B,) int64, the condition whose points the refinement head projects; the last by default.
        """
        gaussian = self.encode(features, padding_mask)
        embeddings = gaussian.sample() if self.training else gaussian.mean
        latents, log_prob = self.to_latents(embeddings)
        points = self.reconstruct(embeddings, latents, self.aggregation_weights(gaussian, present), present)
        if refined is None:
            refined = torch.full((len(points),), points.shape[1] - 1, device=points.device)
        chosen = points[torch.arange(len(points), device=points.device), refined]
        return CMARROutput(
            mean=gaussian.mean,
            log_std=gaussian.log_std,
            embeddings=embeddings,
            log_prob=log_prob,
            points=points,
            present=present,
            projections=F.normalize(self.projection(chosen), dim=-1),
            logits=self.classifier(points, embeddings, present),
        )

    def to_latents(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Run the flows forward on embeddings (B, M, E).

        Returns:
            Latents (B, M, E), differentiable in the embeddings, and log p(u) (B, M) in nats, which is not: the
            encoders could otherwise lower the likelihood loss by shrinking what the flows have to fit. One pass
            over both copies costs less than two passes.
        """
        both = torch.cat([embeddings, embeddings.detach()]) if torch.is_grad_enabled() else embeddings
        latents, log_prob = [], []
        for i, m in enumerate(self.modalities):
            z, log_abs_det = self.flow_of(m).to_latent(both[:, i])
            latents.append(z[: len(embeddings)])
            log_prob.append(LatentFlow.base_log_prob(z, log_abs_det)[-len(embeddings) :])
        return torch.stack(latents, dim=1), torch.stack(log_prob, dim=1)

    @torch.no_grad()
    def round_trip_error(self, embeddings: Tensor) -> Tensor:
        """Return max |u - F^-1(F(u))| over embeddings (B, M, E): a scalar that grows when a flow degenerates."""
        errors = [
            self.flow_of(m).from_latent(self.flow_of(m).to_latent(embeddings[:, i])[0])[0] - embeddings[:, i]
            for i, m in enumerate(self.modalities)
        ]
        return torch.stack(errors).abs().max()

    def aggregation_weights(self, gaussian: Gaussian, present: Tensor) -> Tensor:
        """Return the weights (B, K, M) of the modalities under conditions present (B, K, M) bool; 0 if not present."""
        if self.aggregation != "precision":
            return present
        precision = 1 / (2 * gaussian.log_std).exp().mean(dim=-1)
        return present * precision.unsqueeze(1)

    def reconstruct(self, embeddings: Tensor, latents: Tensor, weight: Tensor, present: Tensor) -> Tensor:
        r"""Return the points r: u where present, :math:`\hat u_{m|A}` elsewhere.

        Args:
            embeddings: u, (B, M, E).
            latents: z, (B, M, E).
            weight: Of the latents under the conditions, (B, K, M).
            present: (B, K, M) bool.

        Returns:
            (B, K, M, E).
        """
        aggregated = aggregate_latents(latents, weight)
        # Points are looked up among the true and the recovered ones, which costs less than writing into copies.
        own = torch.arange(len(embeddings), device=present.device).unsqueeze(1)
        columns = []
        for i, m in enumerate(self.modalities):
            missing = ~present[:, :, i]
            if self.aggregation == "invert_then_mean":
                each = self.flow_of(m).from_latent(latents.flatten(0, 1))[0].view_as(latents)
                recovered = aggregate_latents(each, weight)[missing]
            else:
                recovered = self.flow_of(m).from_latent(aggregated[missing])[0]
            nth = missing.flatten().cumsum(dim=0).view_as(missing) - 1
            index = torch.where(missing, len(embeddings) + nth, own)
            columns.append(F.embedding(index, torch.cat([embeddings[:, i], recovered.to(embeddings.dtype)])))
        return torch.stack(columns, dim=2)


def _make_flow(reconstruction: Reconstruction, embed_dim: int, flow_steps: int) -> LatentFlow | MeanSubstitute:
    if reconstruction == "zeros":
        return ZeroSubstitute()
    if reconstruction == "mean":
        return MeanSubstitute()
    if reconstruction == "regressor":
        return RegressionSubstitute(embed_dim)
    return LatentFlow(embed_dim, flow_steps)
