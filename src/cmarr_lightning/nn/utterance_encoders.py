"""Encoders of the peers: the frames of one modality to one embedding per utterance, or the embedding of silence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmarr_lightning.modalities import per_modality
from cmarr_lightning.nn.encoders import FrameSharedDropout

__all__ = [
    "EncoderName",
    "LSTMEncoder",
    "MLPEncoder",
    "Padding",
    "TextCNNEncoder",
    "UtteranceEncoder",
    "UtteranceEncoders",
    "choose_encoders",
]

EncoderName: TypeAlias = Literal["lstm", "textcnn", "mlp", "norm_mlp"]
Padding: TypeAlias = Literal["invariant", "released"]
"""Whether padded frames are left out of the pooling, or are read as zeros as in the released programs."""


class UtteranceEncoder(nn.Module):
    """Pool frames, then map what was pooled to an embedding; the parts are used apart for an all-zero input."""

    head: nn.Module

    @abstractmethod
    def pool(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool frames (B, T, D), zeros where padding_mask (B, T) is True, into (B, P)."""

    def forward(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        """Embed frames (B, T, D) with padding_mask (B, T, True = padding) as (B, E)."""
        embeddings: Tensor = self.head(self.pool(frames, padding_mask))
        return embeddings


class LSTMEncoder(UtteranceEncoder):
    r"""Take the largest value over time of each unit of a one-directional LSTM: :math:`h = \max_t \mathrm{LSTM}(x)_t`.

    Args:
        feature_dim: D.
        embed_dim: E.

    Examples:
        >>> LSTMEncoder(12, 8)(torch.zeros(2, 5, 12), torch.zeros(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 8])
    """

    def __init__(self, feature_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(feature_dim, embed_dim, batch_first=True)
        self.head = nn.Identity()

    def pool(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool over the frames that are not padding; later frames change nothing at earlier ones."""
        # In float32 under autocast too: there the LSTM of CUDA gives float16, whatever the precision asked for.
        with torch.autocast(frames.device.type, enabled=False):
            states: Tensor = self.lstm(frames.to(torch.promote_types(frames.dtype, torch.float32)))[0]
        return states.masked_fill(padding_mask.unsqueeze(-1), -torch.inf).amax(dim=1)


class TextCNNEncoder(UtteranceEncoder):
    r"""Convolve windows of 3, 4 and 5 tokens over all D dimensions, keep the maximum over time, project.

    .. math:: h = \mathrm{ReLU}(W\, \mathrm{dropout}[\max_t \mathrm{ReLU}(x_{t:t+w} * K_w)]_{w \in \{3,4,5\}})

    A window counts when it lies within the utterance; one that is shorter than the window counts as if zeros
    followed it.

    Args:
        feature_dim: D.
        embed_dim: E, also the number of channels per window.
        dropout: Of the 3 E pooled channels.

    References:
        Kim, "Convolutional Neural Networks for Sentence Classification", 2014, https://arxiv.org/abs/1408.5882
    """

    windows = (3, 4, 5)

    def __init__(self, feature_dim: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(feature_dim, embed_dim, window) for window in self.windows)
        width = len(self.windows) * embed_dim
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, embed_dim), nn.ReLU())

    def pool(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool over the windows that lie within the utterance."""
        lacking = max(0, max(self.windows) - frames.shape[1])
        tokens = F.pad(frames, (0, 0, 0, lacking)).transpose(1, 2)
        lengths = (~padding_mask).sum(dim=1, keepdim=True)  # (B, 1)
        pooled = []
        for convolution, window in zip(self.convolutions, self.windows, strict=True):
            channels = F.relu(convolution(tokens))  # (B, E, T - w + 1)
            start = torch.arange(channels.shape[-1], device=tokens.device)
            outside = start > (lengths - window).clamp_min(0)
            pooled.append(channels.masked_fill(outside.unsqueeze(1), 0.0).amax(dim=-1))
        return torch.cat(pooled, dim=-1)


class MLPEncoder(UtteranceEncoder):
    r"""Embed an utterance vector.

    .. math::
        h = \mathrm{ReLU}(W_2\, \mathrm{dropout}(\mathrm{ReLU}(W_1 \bar x))) \qquad\text{or, normalised,}\qquad
        h = W_2\, \mathrm{dropout}(\mathrm{GELU}(\mathrm{LN}(W_1 \bar x)))

    with biases; :math:`\bar x` is the mean of the frames, which of an utterance vector (T = 1) is the vector. Bounded,
    it is :math:`\tanh h`.

    Args:
        feature_dim: D.
        embed_dim: E.
        hidden_dim: Width of the hidden layer.
        dropout: Of the hidden layer.
        bounded: Whether embeddings stay below 1, as those of the LSTM do.
        normalised: Whether to use the layers with which CM-ARR reads a vector, see `FeatureEncoder`.

    Note:
        The peers were published on sequences. On one frame an LSTM is a gated linear layer with an unused recurrence
        and a convolution sees padding only, so that a perceptron of the same output width takes their place. A
        cascade, and CMD of the very embeddings that classify, rely on the LSTM's bound: unbounded, CMD of IF-MMIN
        began at 4e4 on utterance vectors of IEMOCAP, with the cross-entropy at 2. The plain layers are such as released
        programs have for vectors; the normalised ones leave the methods, and not how they read a vector, to differ.
    """

    def __init__(
        self,
        feature_dim: int,
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        bounded: bool,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        bound = nn.Tanh() if bounded else nn.Identity()
        first, last = nn.Linear(feature_dim, hidden_dim), nn.Linear(hidden_dim, embed_dim)
        if normalised:
            self.head = nn.Sequential(first, nn.LayerNorm(hidden_dim), nn.GELU(), nn.Dropout(dropout), last, bound)
        else:
            self.head = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), last, nn.ReLU(), bound)

    def pool(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        """Average the frames that are not padding."""
        kept = (~padding_mask).to(frames.dtype)
        return torch.einsum("bt,btd->bd", kept / kept.sum(dim=1, keepdim=True), frames)


def choose_encoders(
    kinds: Mapping[str, str], given: Mapping[str, EncoderName] | None = None, vector: EncoderName = "mlp"
) -> dict[str, EncoderName]:
    """Choose an encoder per modality by what its features are.

    Args:
        kinds: Per modality "sequence" or "vector".
        given: Choices that come first.
        vector: The encoder of vectors.

    Returns:
        That for vectors, `textcnn` for the sequence called text, `lstm` for other sequences.

    Examples:
        >>> choose_encoders({"audio": "sequence", "text": "sequence", "face": "vector"})
        {'audio': 'lstm', 'text': 'textcnn', 'face': 'mlp'}
    """
    chosen: dict[str, EncoderName] = {}
    for m, kind in kinds.items():
        chosen[m] = vector if kind == "vector" else "textcnn" if m == "text" else "lstm"
    return chosen | dict(given or {})


class UtteranceEncoders(nn.Module):
    r"""Embed all modalities; one that is missing is embedded as an all-zero input.

    .. math:: h_{mA} = \mathrm{Enc}_m(x_m) \text{ if } m \in A \text{ else } \mathrm{Enc}_m(0)

    Each utterance is encoded once for all its conditions, and not at all where no condition has the modality.

    Args:
        feature_dims: D per modality name; the order of the names is the order of the M axis.
        encoders: Name of the encoder per modality; `norm_mlp` is the normalised `MLPEncoder`.
        embed_dim: E.
        hidden_dim: Width of the hidden layer of `mlp` and `norm_mlp`.
        dropout: In `textcnn`, `mlp` and `norm_mlp`.
        input_dropout: Of the scaled features, shared by the frames; one for all modalities, or by name.
        bounded: Whether embeddings of `mlp` and `norm_mlp` stay below 1.
        padding: `invariant`: padded frames are left out, and the zero input of a missing modality is one frame.
            `released`: both are zeros up to the longest utterance of the batch.

    Note:
        `invariant` is our default. In the released programs the LSTM runs over the padding and the maximum includes
        it, so that an utterance's embedding depends on the longest one in its batch (3.9 % of the classes that a
        trained IF-MMIN predicted changed with the batch size), and a missing modality still shows its length.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        encoders: Mapping[str, EncoderName],
        embed_dim: int = 128,
        hidden_dim: int = 128,
        dropout: float = 0.5,
        input_dropout: float | Mapping[str, float] = 0.0,
        bounded: bool = True,
        padding: Padding = "invariant",
    ) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.padding = padding
        self.input_dropout = nn.ModuleDict(
            {m: FrameSharedDropout(p) for m, p in per_modality("input_dropout", input_dropout, self.modalities).items()}
        )
        made: dict[str, UtteranceEncoder] = {}
        for m, dim in feature_dims.items():
            if encoders[m] == "lstm":
                made[m] = LSTMEncoder(dim, embed_dim)
            elif encoders[m] == "textcnn":
                made[m] = TextCNNEncoder(dim, embed_dim, dropout)
            else:
                made[m] = MLPEncoder(dim, embed_dim, hidden_dim, dropout, bounded, encoders[m] == "norm_mlp")
        self.encoder = nn.ModuleDict(made)

    def forward(self, features: Mapping[str, Tensor], padding_mask: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embed under K conditions.

        Args:
            features: Per modality (B, T, D), scaled, zeros in the padding.
            padding_mask: Per modality (B, T) bool, True = padding.
            present: (B, K, M) bool.

        Returns:
            (B, K, M, E).
        """
        columns = []
        for i, m in enumerate(self.modalities):
            here = present[:, :, i]
            silent = self.silent(m, features[m])
            heard = silent
            if (needed := here.any(dim=1)).any():
                embedded = self._encode(m, features[m][needed], padding_mask[m][needed])
                heard = silent.to(embedded.dtype).index_put((needed,), embedded)
            columns.append(torch.where(here.unsqueeze(-1), heard.unsqueeze(1), silent.to(heard.dtype).unsqueeze(1)))
        return torch.stack(columns, dim=2)

    def silent(self, modality: str, features: Tensor) -> Tensor:
        """Embed an all-zero input of one modality for every row of features (B, T, D); (B, E)."""
        encoder = cast(UtteranceEncoder, self.encoder[modality])
        length = features.shape[1] if self.padding == "released" else 1
        zeros = features.new_zeros(1, length, features.shape[2])
        pooled = encoder.pool(zeros, torch.zeros(1, length, dtype=torch.bool, device=features.device))
        embeddings: Tensor = encoder.head(pooled.expand(len(features), -1))
        return embeddings

    def _encode(self, modality: str, frames: Tensor, padding_mask: Tensor) -> Tensor:
        if self.padding == "released":
            padding_mask = torch.zeros_like(padding_mask)
        embeddings: Tensor = self.encoder[modality](self.input_dropout[modality](frames), padding_mask)
        return embeddings
