"""Pretrained encoders of speech and text, by Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmarr_lightning.data.extraction.inputs import read_recording
from cmarr_lightning.errors import InputError, not_installed

__all__ = ["SpeechEncoder", "TextEncoder"]


class SpeechEncoder:
    """wav2vec 2.0, HuBERT, WavLM and their kin: a recording to T frames.

    Args:
        model: Name on the hub, or folder.
        layer: Hidden layer, 0 = the input of the first block, -1 = the last.
        device: Where it runs.

    Raises:
        InputError: transformers is not installed, or no such model.
    """

    def __init__(self, model: str, layer: int, device: str) -> None:
        self._model = _load("AutoModel", model).eval().to(device)
        self._extractor = _load("AutoFeatureExtractor", model)
        self._layer = _checked_layer(self._model, layer, model)
        self._device = device
        if not hasattr(self._model, "_get_feat_extract_output_lengths"):
            raise InputError(f"{model}: not an encoder of speech", remedy="use a wav2vec 2.0, HuBERT or WavLM model")
        # A group norm over time sees the padding, so such models get one recording at a time.
        self.batched: bool = getattr(self._model.config, "feat_extract_norm", "layer") == "layer"

    @torch.inference_mode()
    def encode(self, files: Sequence[Path]) -> list[np.ndarray]:
        """Encode recordings: each (T, D) float32, padding left out.

        Raises:
            InputError: A recording that cannot be read or is too short for one frame.
        """
        rate: int = self._extractor.sampling_rate
        waves = [read_recording(file, rate) for file in files]
        lengths = self._model._get_feat_extract_output_lengths(torch.tensor([len(wave) for wave in waves])).tolist()
        for file, wave, length in zip(files, waves, lengths, strict=True):
            if length < 1:
                raise InputError(f"{file}: {len(wave) / rate:.3f} s are too short", remedy="leave the recording out")
        inputs = self._extractor(
            waves, sampling_rate=rate, padding=True, return_attention_mask=self.batched, return_tensors="pt"
        )
        return _encode(self._model, inputs, self._layer, self._device, lengths)


class TextEncoder:
    """BERT, RoBERTa and their kin: a transcript to T tokens, those that begin and end it included.

    Args:
        model: Name on the hub, or folder.
        layer: Hidden layer, 0 = the embeddings, -1 = the last.
        device: Where it runs.

    Raises:
        InputError: transformers is not installed, or no such model.
    """

    batched = True

    def __init__(self, model: str, layer: int, device: str) -> None:
        self._model = _load("AutoModel", model).eval().to(device)
        self._tokenizer = _load("AutoTokenizer", model)
        self._layer = _checked_layer(self._model, layer, model)
        self._device = device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode transcripts: each (T, D) float32; what is longer than the model can take is cut."""
        most = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return _encode(self._model, inputs, self._layer, self._device, lengths)


def _encode(model: Any, inputs: Any, layer: int, device: str, lengths: Sequence[int]) -> list[np.ndarray]:
    output = model(**{key: value.to(device) for key, value in inputs.items()}, output_hidden_states=True)
    hidden = output.hidden_states[layer].float().cpu().numpy()
    return [frames[:length].copy() for frames, length in zip(hidden, lengths, strict=True)]


def _load(kind: str, model: str) -> Any:
    """Load a model or its preprocessing; code that comes with a model is never run."""
    try:
        import transformers
    except ImportError as error:
        raise not_installed("transformers", "extract") from error
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return getattr(transformers, kind).from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"model {model!r}: {first}", remedy="name a model of the hub, or a folder that holds one"
        ) from error


def _checked_layer(model: Any, layer: int, name: str) -> int:
    layers = int(model.config.num_hidden_layers)
    if not -layers - 1 <= layer <= layers:
        raise InputError(f"{name}: no layer {layer}", remedy=f"choose 0 to {layers}, or -1 for the last")
    return layer
