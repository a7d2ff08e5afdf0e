"""The CM-ARR network: encode, align, reconstruct, refine, fuse; each utterance is encoded once for all conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmarr_lightning.nn.encoders import FeatureEncoder
from cmarr_lightning.nn.flows import LatentFlow
from cmarr_lightning.nn.fusion import FusionClassifier
from cmarr_lightning.nn.scaling import FeatureScaler
from cmarr_lightning.nn.uncertainty import Gaussian, UncertaintyModelingComponent
from cmarr_lightning.outputs import CMARROutput

__all__ = ["CMARRNetwork", "aggregate_latents"]


def aggregate_latents(latents: Tensor, present: Tensor) -> Tensor:
    r"""Average the latents of what is present: :math:`\bar z_A = \frac{1}{|A|} \sum_{n \in A} z_n`.

    Args:
        latents: (B, M, E).
        present: (B, K, M) bool.

    Returns:
        (B, K, E); zeros where nothing is present.
    """
    weight = present.to(latents.dtype)
    return weight @ latents / weight.sum(dim=-1, keepdim=True).clamp_min(1)


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
        input_dropout: Of the scaled features.
        umc_dropout: In the MLPs of the UMC.
        head_hidden_dim: Width of the classifier's hidden layer.
        head_dropout: In the classifier.
        projection_dim: P, width of the refinement head.

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
        input_dropout: float = 0.0,
        umc_dropout: float = 0.1,
        head_hidden_dim: int = 128,
        head_dropout: float = 0.5,
        projection_dim: int = 64,
    ) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.embed_dim = embed_dim
        self.scaler = nn.ModuleDict({m: FeatureScaler(dim) for m, dim in feature_dims.items()})
        self.encoder = nn.ModuleDict(
            {
                m: FeatureEncoder(dim, embed_dim, encoder_hidden_dim, encoder_dropout, input_dropout)
                for m, dim in feature_dims.items()
            }
        )
        self.umc = nn.ModuleDict(
            {m: UncertaintyModelingComponent(embed_dim, num_heads, dropout=umc_dropout) for m in feature_dims}
        )
        self.flow = nn.ModuleDict({m: LatentFlow(embed_dim, flow_steps) for m in feature_dims})
        self.classifier = FusionClassifier(len(feature_dims), embed_dim, num_classes, head_hidden_dim, head_dropout)
        self.projection = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, projection_dim)
        )

    def flow_of(self, modality: str) -> LatentFlow:
        """Return the flow F_m of a modality."""
        return cast(LatentFlow, self.flow[modality])

    def encode(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor]) -> Gaussian:
        """Model every modality as a Gaussian, (B, M, E); rows without the modality hold values nobody reads."""
        gaussians = [
            self.umc[m](self.encoder[m](self.scaler[m](features[m])), padding_mask[m]) for m in self.modalities
        ]
        return Gaussian(*(torch.stack(parts, dim=1) for parts in zip(*gaussians, strict=True)))

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
        points = self.reconstruct(embeddings, aggregate_latents(latents, present), present)
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

    def reconstruct(self, embeddings: Tensor, aggregated: Tensor, present: Tensor) -> Tensor:
        r"""Return the points r: u where present, :math:`F_m^{-1}(\bar z_A)` elsewhere.

        Args:
            embeddings: u, (B, M, E).
            aggregated: (B, K, E).
            present: (B, K, M) bool.

        Returns:
            (B, K, M, E).
        """
        # Points are looked up among the true and the recovered ones, which costs less than writing into copies.
        own = torch.arange(len(embeddings), device=present.device).unsqueeze(1)
        columns = []
        for i, m in enumerate(self.modalities):
            missing = ~present[:, :, i]
            recovered = self.flow_of(m).from_latent(aggregated[missing])[0]
            nth = missing.flatten().cumsum(dim=0).view_as(missing) - 1
            index = torch.where(missing, len(embeddings) + nth, own)
            columns.append(F.embedding(index, torch.cat([embeddings[:, i], recovered.to(embeddings.dtype)])))
        return torch.stack(columns, dim=2)
