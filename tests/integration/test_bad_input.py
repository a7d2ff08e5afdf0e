"""Input that cannot be used stops every command with one message, code 2 and nothing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.data.store import FeatureStore

Command = Callable[..., int]
Refused = Callable[..., str]


@pytest.fixture
def refused(cmarr: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that has to be refused; get its message."""

    def run(*words: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert cmarr(*words) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert error.count("cmarr: error: ") == 1
        message = error.split("cmarr: error: ")[1].strip()
        assert message.count("Remedy: ") == 1
        assert len(message) < 600
        assert {path: path.read_bytes() for path in before} == before
        assert not list(tmp_path.rglob("*.ckpt")) or any(path.suffix == ".ckpt" for path in before)
        return message

    return run


@pytest.fixture
def refused_fit(refused: Refused, config: Path, tiny_store: Path, tmp_path: Path) -> Refused:
    """Train as `run`, which has to be refused and must not take the folder."""

    def fit(*words: object, store: Path = tiny_store) -> str:
        message = refused("fit", "-c", config, "--data.store", store, "--run", "new", *words)
        assert not (tmp_path / "new" / "config.yaml").exists()
        return message

    return fit


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy of the tiny store that may be harmed."""
    return Path(shutil.copytree(tiny_store, tmp_path / "harmed"))


def test_no_store(refused_fit: Refused, tmp_path: Path):
    message = refused_fit(store=tmp_path / "nowhere")
    assert "nowhere: no feature store" in message
    assert "cmarr prepare" in message


def test_a_store_that_is_a_file(refused_fit: Refused, tmp_path: Path):
    (tmp_path / "file").write_text("nothing")
    assert "file" in refused_fit(store=tmp_path / "file")


def test_a_header_that_is_not_json(refused_fit: Refused, store: Path):
    (store / "store.json").write_text("{")
    assert "store.json: not valid JSON" in refused_fit(store=store)


@pytest.mark.parametrize("file", ["audio.values.npy", "text.offsets.npy", "manifest.parquet"])
def test_a_truncated_store(refused_fit: Refused, store: Path, file: str):
    whole = (store / file).read_bytes()
    (store / file).write_bytes(whole[: len(whole) // 2])
    assert file in refused_fit(store=store)


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_a_tampered_store(refused: Refused, config: Path, trained_run: Path, store: Path, stage: str):
    """One changed value, the size is the same."""
    values = np.load(store / "audio.values.npy", mmap_mode="r+")
    values[7, 3] += 1
    values.flush()
    run = ["-c", config, "--run", "new"] if stage == "fit" else ["--run", "run"]
    message = refused(stage, *run, "--data.store", store)
    assert "audio.values.npy: checksum differs" in message


def test_a_label_that_is_no_class(refused_fit: Refused):
    message = refused_fit("--data.classes", "[angry,happy,neutral]")
    assert "utterance 'synthetic-" in message
    assert "label 'sad' is none of angry, happy, neutral" in message


def test_a_class_that_no_utterance_has(refused_fit: Refused):
    message = refused_fit("--data.classes", "[angry,happy,neutral,sad,bored]")
    assert "no training utterance of class bored" in message


def test_a_class_absent_from_a_training_fold(
    refused_fit: Refused, write_store: Callable[..., FeatureStore], tmp_path: Path
):
    labels = [("angry", "happy", "sad" if i % 4 == 0 else "angry")[i // 4 % 3] for i in range(80)]
    store = write_store(tmp_path / "store", np.ones((80, 2), dtype=bool), labels).path
    assert "no training utterance of class sad" in refused_fit(store=store)


@pytest.mark.parametrize("fold", [-1, 4])
def test_a_fold_that_is_not_there(refused_fit: Refused, fold: int):
    message = refused_fit("--data.fold", fold)
    assert f"fold {fold} is out of range" in message
    assert "0 to 3" in message


@pytest.mark.parametrize(("size", "says"), [(1, "batch_size is 1"), (121, "do not fill one batch of 121")])
def test_a_batch_too_small_or_never_full(refused_fit: Refused, size: int, says: str):
    assert says in refused_fit("--data.batch_size", size)


def test_an_utterance_with_none_of_the_modalities(refused_fit: Refused, gappy_store: Path):
    observed = FeatureStore.open(gappy_store).observed()
    (first, *_) = np.flatnonzero(~observed[:, :2].any(axis=1))
    message = refused_fit("--data.modalities", "[m0,m1]", store=gappy_store)
    assert "without any of m0, m1" in message
    assert f"u{first:03d}" in message


@pytest.mark.parametrize("modalities", ["[audio,smell]", "[audio]", "[audio,audio]"])
def test_modalities_that_cannot_be_used(refused_fit: Refused, modalities: str):
    assert "modalit" in refused_fit("--data.modalities", modalities)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_precision_without_an_inverse(refused_fit: Refused, precision: str):
    message = refused_fit("--trainer.precision", precision)
    assert precision in message
    assert "bf16-mixed" in message


@pytest.mark.parametrize(
    ("yaml", "key"),
    [
        ("nonsense: 1", "nonsense"),
        ("trainer: {max_epoch: 3}", "trainer.max_epoch"),
        ("data: {class_path: FeatureDataModule, init_args: {nonsense: 3}}", "nonsense"),
        ("model: {class_path: CMARRTask, init_args: {nonsense: 3}}", "nonsense"),
        ("model: {class_path: NoSuchTask}", "NoSuchTask"),
        ("trainer: {max_epochs: many}", "trainer.max_epochs"),
        ("seed_everything: true", "seed_everything"),
        ("trainer: [", "config"),
    ],
)
def test_a_configuration_with_an_unknown_key_or_value(refused_fit: Refused, tmp_path: Path, yaml: str, key: str):
    (tmp_path / "bad.yaml").write_text(yaml)
    assert key in refused_fit("-c", "bad.yaml")


@pytest.mark.parametrize("option", ["--nonsense", "--trainer.nonsense", "--data.nonsense", "--model.nonsense"])
def test_an_unknown_option(refused_fit: Refused, option: str):
    assert "nonsense" in refused_fit(option, "1")


def test_settings_that_a_constructor_refuses(refused_fit: Refused):
    assert "embed_dim 18 is not divisible" in refused_fit("--model.embed_dim", 18, "--model.num_heads", 2)


def test_an_option_by_name_of_other_modalities(refused_fit: Refused):
    message = refused_fit("--model.input_dropout", "{audio: 0.1, text: 0.4}")
    assert "input_dropout names audio, text, the modalities are audio, video, text" in message


def test_a_device_that_is_not_there(refused_fit: Refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning.pytorch.accelerators.CUDAAccelerator.is_available", lambda: False)
    refused_fit("--trainer.accelerator", "cuda")


def test_training_without_an_end(refused_fit: Refused):
    assert "trainer.max_epochs" in refused_fit("--trainer.max_epochs", -1)


def test_no_configuration(refused: Refused):
    assert "nowhere.yaml" in refused("fit", "-c", "nowhere.yaml")
    assert "required" in refused("fit")


def test_an_unknown_command(cmarr: Command, capsys: pytest.CaptureFixture[str]):
    assert cmarr("fitt") == 2
    assert "fit, validate, test, predict" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_no_run(refused: Refused, config: Path, tiny_store: Path, stage: str):
    assert "no run named" in refused(stage)
    assert "nowhere" in refused(stage, "--run", "nowhere")
    options = ("-c", config, "--data.store", tiny_store, "--ckpt_path", "nowhere.ckpt")
    assert "nowhere.ckpt: no such checkpoint" in refused(stage, *options)


def test_nothing_to_resume(refused: Refused):
    assert "no run with a last checkpoint" in refused("fit", "--ckpt_path", "last")
    assert "no last checkpoint" in refused("fit", "--ckpt_path", "last", "--run", "nowhere")


@pytest.mark.parametrize(
    ("stage", "options", "says"),
    [
        ("fit", "--ckpt_path last --data.modalities [audio,text]", "modalities = ['audio', 'video', 'text']"),
        ("test", "--data.modalities [text,audio,video]", "modalities = ['audio', 'video', 'text']"),
        ("test", "--data.classes [sad,happy,neutral,angry]", "class_names = ['angry', 'happy', 'neutral', 'sad']"),
        ("predict", "--data.modalities [audio,touch]", "no modality 'touch'"),
        ("fit", "--ckpt_path last --model.embed_dim 32", "another network"),
        ("test", "--model.embed_dim 32", "another network"),
    ],
)
def test_a_checkpoint_made_for_something_else(refused: Refused, trained_run: Path, stage: str, options: str, says: str):
    assert says in refused(stage, "--run", "run", *options.split())


def test_a_checkpoint_made_for_other_dims(
    refused: Refused, write_store: Callable[..., FeatureStore], trained_run: Path, tmp_path: Path
):
    full = np.ones((80, 3), dtype=bool)
    path = write_store(tmp_path / "store", full).path
    for file in path.iterdir():  # the same names as in the training data
        for old, new in (("m0", "audio"), ("m1", "video"), ("m2", "text")):
            if file.name.startswith(f"{old}."):
                file.rename(file.with_name(file.name.replace(old, new)))
    header = (path / "store.json").read_text()
    header = header.replace("m0", "audio").replace("m1", "video").replace("m2", "text")
    (path / "store.json").write_text(header)
    assert "feature_dims = {'audio': 12" in refused("test", "--run", "run", "--data.store", path)


def _no_features(source: Path) -> None:
    (source / "audio" / "b.npy").unlink()
    (source / "text" / "b.npy").unlink()


def _array(value: np.ndarray) -> Callable[[Path], None]:
    return lambda source: np.save(source / "audio" / "b.npy", value)


def _table(text: str) -> Callable[[Path], None]:
    return lambda source: (source / "metadata.csv").write_text(text) and None


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_array(np.ones((4, 3), np.float32)), "b.npy"),
        (_array(np.ones((4, 2), np.float64).astype(np.int32)), "b.npy"),
        (_array(np.full((4, 2), np.inf, np.float32)), "b.npy"),
        (_array(np.ones((0, 2), np.float32)), "b.npy"),
        (_array(np.array([{"a": 1}], dtype=object)), "b.npy"),
        (_no_features, "(b)"),
        (_table("utterance_id,label\na,happy\n"), "b"),
        (_table("utterance_id,label\na,happy\na,sad\nb,sad\n"), "'a'"),
        (_table("label\nhappy\nsad\n"), "utterance_id"),
    ],
    ids=["dims", "dtype", "inf", "empty", "object", "no features", "no row", "twice", "no ids"],
)
def test_features_that_cannot_become_a_store(refused: Refused, tmp_path: Path, harm: Callable[[Path], None], says: str):
    source = tmp_path / "source"
    for modality in ("audio", "text"):
        (source / modality).mkdir(parents=True)
        for utterance in "ab":
            np.save(source / modality / f"{utterance}.npy", np.ones((4, 2), np.float32))
    (source / "metadata.csv").write_text("utterance_id,label\na,happy\nb,sad\n")
    harm(source)
    assert says in refused("prepare", "arrays", source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_refused_fit_does_not_take_the_folder(
    refused_fit: Refused, cmarr: Command, config: Path, tiny_store: Path, tmp_path: Path
):
    refused_fit("--trainer.precision", "bf16-true")
    refused_fit("--data.batch_size", 121)
    fit = ("fit", "-c", config, "--data.store", tiny_store, "--run", "new")
    assert cmarr(*fit, "--trainer.max_epochs", "1") == 0
    assert (tmp_path / "new" / "checkpoints" / "last.ckpt").exists()
