"""Extraction: finding inputs, resuming and joining with a made-up encoder, and miniature real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmarr_lightning.commands import run_command
from cmarr_lightning.data.extraction.extract import extract_features
from cmarr_lightning.data.extraction.inputs import find_recordings, read_recording
from cmarr_lightning.data.store import FeatureStore
from cmarr_lightning.errors import InputError

wavfile = pytest.importorskip("scipy.io.wavfile")


class _Letters:
    """One frame per letter; stops after so many calls."""

    batched = True

    def __init__(self, calls: int = 99) -> None:
        self.calls = calls
        self.seen: list[str] = []

    def encode(self, inputs: Sequence[str]) -> list[np.ndarray]:
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        self.seen += inputs
        return [np.array([[ord(letter), 1.0] for letter in text], "f4") for text in inputs]


def _texts(folder: Path, *, table: bool = True) -> Path:
    folder.mkdir()
    said = {"u1": "hello", "u2": "", "u3": "ab", "u4": "abc"}
    if table:
        lines = "".join(f"{name},{text},sad\n" for name, text in said.items())
        (folder / "metadata.csv").write_text("utterance_id,transcript,label\n" + lines)
    else:
        for name, text in said.items():
            (folder / f"{name}.txt").write_text(text + "\n")
    return folder


def _extract(source: Path, out: Path, encoder: Any, **options: Any) -> FeatureStore:
    return extract_features("text", source, out, lambda: encoder, settings={"model": "made up"}, **options)


@pytest.mark.parametrize("table", [True, False])
def test_transcripts_become_frames_and_empty_ones_stay_out(tmp_path: Path, table: bool) -> None:
    store = _extract(_texts(tmp_path / "in", table=table), tmp_path / "out", _Letters(), batch_size=2)
    assert store.manifest["utterance_id"].tolist() == ["u1", "u3", "u4"]
    assert store.lengths("text").tolist() == [5, 2, 3]
    assert store.get(2, "text")[:, 0].tolist() == [97, 98, 99]
    assert store.manifest["label"].tolist() == ["sad" if table else ""] * 3
    assert "model made up" in store.notes[-1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


def test_pooling_keeps_the_mean(tmp_path: Path) -> None:
    store = _extract(_texts(tmp_path / "in"), tmp_path / "out", _Letters(), pool=True)
    assert store.kinds == {"text": "vector"}
    assert store.get(1, "text").tolist() == [[97.5, 1]]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    source = _texts(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        _extract(source, tmp_path / "out", _Letters(calls=2), batch_size=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"out\.extracting: another extraction was left half done"):
        _extract(source, tmp_path / "out", _Letters(), pool=True)
    rest, told = _Letters(), []
    store = _extract(source, tmp_path / "out", rest, batch_size=1, report=lambda *counts: told.append(counts))
    assert rest.seen == ["hello"]
    assert told == [(2, 3), (3, 3)]
    assert store.lengths("text").tolist() == [5, 2, 3]


def test_joining_adds_a_modality_to_a_store(tmp_path: Path) -> None:
    mine = _texts(tmp_path / "in")
    (mine / "audio").mkdir()
    for name in ("u1", "u2", "u3", "u4"):
        np.save(mine / "audio" / f"{name}.npy", np.full((2, 3), 7, "f4"))
    assert run_command(["prepare", str(mine), str(tmp_path / "audio")]) == 0
    store = _extract(mine, tmp_path / "both", _Letters(), join=tmp_path / "audio")
    assert store.modalities == ("audio", "text")
    assert store.observed().tolist() == [[True, True], [True, False], [True, True], [True, True]]
    assert (store.get(3, "audio") == 7).all()
    with pytest.raises(InputError, match="has the modality text already"):
        _extract(mine, tmp_path / "more", _Letters(), join=tmp_path / "both")


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "float32"])
def test_recordings_are_read_as_one_channel_at_the_rate_of_the_model(tmp_path: Path, dtype: str) -> None:
    time = np.arange(8000) / 8000
    wave = 0.5 * np.sin(2 * np.pi * 100 * time)
    whole = np.issubdtype(np.dtype(dtype), np.integer)
    top = np.iinfo(dtype).max // (2 if dtype == "uint8" else 1) if whole else 1
    sound = (wave * top + (128 if dtype == "uint8" else 0)).astype(dtype)
    wavfile.write(tmp_path / "x.wav", 8000, np.stack([sound, sound], axis=1))
    read = read_recording(tmp_path / "x.wav", 16000)
    assert (read.dtype, read.shape) == (np.float32, (16000,))
    expected = 0.5 * np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)
    np.testing.assert_allclose(read[500:-500], expected[500:-500], atol=0.02)


def test_recordings_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.wav files"):
        find_recordings(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/u1.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"u1\.wav: not a readable WAV file"):
        read_recording(tmp_path / "a/u1.wav", 16000)
    (tmp_path / "u1.wav").write_bytes(b"")
    with pytest.raises(InputError, match="has the same name"):
        find_recordings(tmp_path)
    (tmp_path / "u1.wav").unlink()
    (tmp_path / "metadata.csv").write_text("utterance_id\nother\n")
    with pytest.raises(InputError, match="no file is named after an utterance"):
        find_recordings(tmp_path)


@pytest.fixture(scope="module")
def speech_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("speech")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("text")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "ab", "abc"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast.from_pretrained(str(folder)).save_pretrained(folder)
    return folder


def _recordings(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        wavfile.write(folder / f"u{i}.wav", 16000, (random.normal(size=1600 * (1 + i)) * 3000).astype("i2"))
    return folder


def test_a_speech_model_gives_the_same_features_in_any_batch(tmp_path: Path, speech_model: Path) -> None:
    source = _recordings(tmp_path / "in")
    for size in ("1", "4"):
        command = ["extract", "audio", str(source), str(tmp_path / size), "--model", str(speech_model)]
        assert run_command([*command, "--batch-size", size]) == 0
    one, four = (FeatureStore.open(tmp_path / size) for size in ("1", "4"))
    assert one.dims == {"audio": 16}
    lengths = one.lengths("audio")
    assert (np.diff(lengths) > 0).all()
    np.testing.assert_array_equal(lengths, four.lengths("audio"))
    np.testing.assert_allclose(one.values("audio"), four.values("audio"), atol=1e-5)


def test_a_text_model_encodes_transcripts(tmp_path: Path, text_model: Path) -> None:
    command = ["extract", "text", str(_texts(tmp_path / "in")), str(tmp_path / "out"), "--model", str(text_model)]
    assert run_command([*command, "--layer", "1"]) == 0
    store = FeatureStore.open(tmp_path / "out")
    assert store.lengths("text").tolist() == [3, 3, 3]  # [CLS] word [SEP]
    assert store.units["text"] == str(text_model)


def test_models_that_are_not_there_are_refused(
    tmp_path: Path, text_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _texts(tmp_path / "in")
    command = ["extract", "text", str(source), str(tmp_path / "out"), "--model"]
    assert run_command([*command, str(tmp_path / "absent")]) == 2
    assert "Remedy: name a model of the hub" in capsys.readouterr().err
    assert run_command([*command, str(text_model), "--layer", "9"]) == 2
    assert "no layer 9" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_without_the_extra_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    command = ["extract", "text", str(_texts(tmp_path / "in")), str(tmp_path / "out"), "--model", "x"]
    assert run_command(command) == 2
    assert "pip install -c constraints.txt -e '.[extract]'" in capsys.readouterr().err
