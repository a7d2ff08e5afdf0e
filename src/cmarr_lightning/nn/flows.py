"""Normalizing flows over utterance embeddings: the one file that imports nflows."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.coupling import AffineCouplingTransform
from torch import Tensor, nn

__all__ = ["LatentFlow"]


class LatentFlow(nn.Module):
    r"""An invertible map F between embeddings u and latents z with a standard normal base.

    .. math:: -\log p(u) = \tfrac12 \lVert F(u) \rVert^2 + \tfrac{E}{2}\log 2\pi
              - \log\left|\det \frac{\partial F}{\partial u}\right|

    Each step is a fixed random rotation followed by an affine coupling with the scale
    :math:`\exp(c \tanh(s/c))`, which starts as the identity and stays within :math:`e^{\pm c}` in both
    directions.

    Everything runs in float32 outside autocast (float64 stays float64): in bfloat16 forward and inverse
    differ by up to 0.7.

    Args:
        embed_dim: E, even.
        num_steps: Coupling steps.
        hidden_dim: Width of the coupling networks.
        max_log_scale: c.
        seed: Of the rotations. Flows with equal seeds start as the same map, so that their latents begin in
            one frame.

    Raises:
        ValueError: embed_dim is odd.

    Note:
        Glow normalises the activations of every step (ActNorm) and learns the linear maps. The embeddings
        enter normalised (see `UncertaintyModelingComponent`), so ActNorm is left out; with it go
        data-dependent starts that differ between processes and blow up on constant columns. A fixed rotation
        mixes the halves and is inverted by its transpose, however long the training.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017,
        https://arxiv.org/abs/1605.08803. Kingma and Dhariwal, "Glow", 2018, https://arxiv.org/abs/1807.03039.

    Examples:
        >>> flow = LatentFlow(8)
        >>> u = torch.randn(5, 8)
        >>> z, log_abs_det = flow.to_latent(u)
        >>> torch.allclose(flow.from_latent(z)[0], u, atol=1e-5)
        True
    """

    def __init__(
        self,
        embed_dim: int,
        num_steps: int = 4,
        hidden_dim: int = 256,
        max_log_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if embed_dim % 2:
            raise ValueError(f"embed_dim {embed_dim} is odd: a coupling splits it in halves")
        self.embed_dim = embed_dim
        generator = torch.Generator().manual_seed(seed)
        steps: list[Transform] = []
        for _ in range(num_steps):
            steps += [
                _FixedRotation(embed_dim, generator),
                _BoundedAffineCoupling(embed_dim, hidden_dim, max_log_scale),
            ]
        self.transform = CompositeTransform(steps)

    def to_latent(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Map embeddings (B, E) to latents (B, E) and log|det| (B,) in nats."""
        return self._run(embeddings, inverse=False)

    def from_latent(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents (B, E) to embeddings (B, E) and the inverse map's log|det| (B,) in nats."""
        return self._run(latents, inverse=True)

    def log_prob(self, embeddings: Tensor) -> Tensor:
        """Return log p(u) in nats, (B,)."""
        return self.base_log_prob(*self.to_latent(embeddings))

    @staticmethod
    def base_log_prob(latents: Tensor, log_abs_det: Tensor) -> Tensor:
        """Return log N(z; 0, I) + log|det| in nats, (B,), of what `to_latent` returned."""
        square = latents.square().sum(dim=-1)
        return -0.5 * (square + latents.shape[-1] * math.log(2 * math.pi)) + log_abs_det

    def _run(self, inputs: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs if inputs.dtype == torch.float64 else inputs.float()
            run = self.transform.inverse if inverse else self.transform
            outputs, log_abs_det = run(inputs)
        return outputs, log_abs_det


class _FixedRotation(Transform):  # type: ignore[misc]
    """A random orthogonal matrix that is not trained; log|det| = 0."""

    rotation: Tensor

    def __init__(self, features: int, generator: torch.Generator) -> None:
        super().__init__()
        square = torch.randn(features, features, generator=generator, dtype=torch.float64)
        self.register_buffer("rotation", torch.linalg.qr(square)[0].float())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, float]:
        return inputs @ self._matrix(inputs.dtype), 0.0

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, float]:
        return inputs @ self._matrix(inputs.dtype).T, 0.0

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        matrix = self.rotation.to(dtype)
        if dtype == torch.float64:
            # The buffer is float32 (not every device has float64) and so orthogonal to 1e-7 only. One
            # Newton-Schulz step squares that error.
            matrix = 1.5 * matrix - 0.5 * matrix @ matrix.T @ matrix
        return matrix


class _BoundedAffineCoupling(AffineCouplingTransform):  # type: ignore[misc]
    """y2 = x2 * exp(s) + t with (s, t) a function of x1; nflows' own scale can only contract.

    The halves are views; nflows' index arrays would copy them at every step.
    """

    def __init__(self, features: int, hidden_dim: int, max_log_scale: float) -> None:
        super().__init__(
            torch.arange(features) >= features // 2,
            lambda n_in, n_out: _Conditioner(n_in, hidden_dim, n_out),
        )
        self.max_log_scale = max_log_scale

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = inputs.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, torch.addcmul(shift, changed, log_scale.exp())], dim=1), log_scale.sum(dim=1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = inputs.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, (changed - shift) * (-log_scale).exp()], dim=1), -log_scale.sum(dim=1)

    def _log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.transform_net(kept).chunk(2, dim=1)
        return self.max_log_scale * torch.tanh(raw / self.max_log_scale), shift


class _Conditioner(nn.Sequential):
    """One hidden layer, zero at the start; no dropout (forward and inverse would draw different masks)."""

    def __init__(self, in_features: int, hidden_dim: int, out_features: int) -> None:
        last = nn.Linear(hidden_dim, out_features)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(in_features, hidden_dim), nn.ReLU(), last)
