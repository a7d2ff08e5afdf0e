"""Checkpoints hold plain values; files that hold anything else run nothing and are refused by name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cmarr_lightning import CMARRTask

Command = Callable[..., int]
STAGES = [("fit", "last"), ("validate", "best"), ("test", "best"), ("predict", "best")]


class Payload:
    """Makes a folder when unpickled, as a stand-in for anything worse."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A folder that exists once a payload has run."""
    return tmp_path / "marker"


@pytest.fixture
def refused(
    cmarr: Command, trained_run: Path, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Offer a file as checkpoint to a stage of a trained run, which has to refuse it; get the message."""

    def offer(stage: str, file: Path) -> str:
        run = ["-c", "run/config.yaml", "--run", "new"] if stage == "fit" else ["--run", "run"]
        capsys.readouterr()
        assert cmarr(stage, *run, "--ckpt_path", file) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert not marker.exists()
        message = error.split("cmarr: error: ")[1]
        assert str(file) in message
        return message

    return offer


def best(run: Path) -> Path:
    (path,) = (run / "checkpoints").glob("best-*.ckpt")
    return path


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def test_every_checkpoint_loads_as_plain_values(trained_run: Path):
    paths = list(trained_run.rglob("*.ckpt"))
    assert len(paths) == 2
    for path in paths:
        checkpoint = load(path)
        assert {"state_dict", "hyper_parameters", "optimizer_states", "current_model_state"} <= checkpoint.keys()
        assert checkpoint["hyper_parameters"]["class_names"] == ["angry", "happy", "neutral", "sad"]


def test_a_checkpoint_loads_from_python(trained_run: Path):
    task = CMARRTask.load_from_checkpoint(best(trained_run), weights_only=True)
    assert task.feature_dims == {"audio": 12, "video": 10, "text": 16}
    state = load(best(trained_run))["state_dict"]
    torch.testing.assert_close(dict(task.state_dict()), dict(state), rtol=0, atol=0)
    assert (task.scalers()["audio"].std != 1).all()  # the statistics of the training fold came along


@pytest.mark.parametrize(("stage", "which"), STAGES)
def test_every_stage_reads_plain_values_only(
    cmarr: Command, trained_run: Path, monkeypatch: pytest.MonkeyPatch, stage: str, which: str
):
    """Also when the configuration says otherwise."""
    read, asked = torch.load, []

    def remember(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs.get("weights_only"))
        return read(*args, **kwargs)

    monkeypatch.setattr(torch, "load", remember)
    assert cmarr(stage, "--run", "run", "--ckpt_path", which, "--weights_only", "false") == 0
    assert len(asked) >= 2  # our check and Lightning
    assert set(asked) == {True}


@pytest.mark.parametrize(("stage", "_"), STAGES)
def test_a_pickled_payload_never_runs(refused: Callable[..., str], tmp_path: Path, marker: Path, stage: str, _: str):
    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "payload": Payload(marker)}, file)
    assert "cannot be loaded as a checkpoint" in refused(stage, file)

    with pytest.raises(FileNotFoundError):  # it is a payload: without the guard it runs
        marker.rmdir()
    torch.load(file, weights_only=False)
    marker.rmdir()


def test_a_payload_in_a_plain_pickle_never_runs(refused: Callable[..., str], tmp_path: Path, marker: Path):
    file = tmp_path / "evil.ckpt"
    file.write_bytes(pickle.dumps(Payload(marker)))
    assert "cannot be loaded as a checkpoint" in refused("test", file)


def test_a_payload_inside_a_real_checkpoint_never_runs(
    refused: Callable[..., str], trained_run: Path, tmp_path: Path, marker: Path
):
    file = tmp_path / "evil.ckpt"
    checkpoint = load(best(trained_run))
    checkpoint["hyper_parameters"]["learning_rate"] = Payload(marker)
    torch.save(checkpoint, file)
    assert "cannot be loaded as a checkpoint" in refused("test", file)


def test_an_instantiator_in_the_hyperparameters_never_runs(
    cmarr: Command, trained_run: Path, tmp_path: Path, marker: Path
):
    """GHSA-qqmf-gpg7-g8gw: Lightning before 2.6.6 imported and called what a checkpoint named."""
    file = tmp_path / "evil.ckpt"
    checkpoint = load(best(trained_run))
    checkpoint["hyper_parameters"] |= {
        "_instantiator": "os.makedirs",
        "_class_path": "os.makedirs",
        "modalities": ["audio", "video", "text"],
    }
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="not in the allowlist"):
        CMARRTask.load_from_checkpoint(file, weights_only=True)
    checkpoint["hyper_parameters"]["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    checkpoint["hyper_parameters"] |= {"name": str(marker)}
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="does not resolve to an already imported"):
        CMARRTask.load_from_checkpoint(file, weights_only=True)
    # The command line builds the model from the configuration and never from a checkpoint.
    assert cmarr("test", "--run", "run", "--ckpt_path", file) == 0
    assert not marker.exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint(refused: Callable[..., str], trained_run: Path, tmp_path: Path, kept: float):
    file = tmp_path / "cut.ckpt"
    whole = best(trained_run).read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert "cannot be loaded as a checkpoint" in refused("test", file)


@pytest.mark.parametrize(
    "content",
    [
        {"weight": torch.zeros(3)},
        {"state_dict": {"weight": torch.zeros(3)}},
        {"state_dict": {}, "pytorch-lightning_version": "2.6.6"},
        [1, 2, 3],
        torch.zeros(3),
    ],
    ids=["bare weights", "state", "no hyperparameters", "list", "tensor"],
)
def test_a_foreign_checkpoint(refused: Callable[..., str], tmp_path: Path, content: object):
    file = tmp_path / "foreign.ckpt"
    torch.save(content, file)
    assert "not a checkpoint of this program" in refused("test", file)


def test_a_text_file(refused: Callable[..., str], tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("accuracy was fine\n")
    assert "cannot be loaded as a checkpoint" in refused("predict", file)


def test_weights_alone_score_but_do_not_resume(
    cmarr: Command, refused: Callable[..., str], trained_run: Path, tmp_path: Path
):
    """As `checkpoint.save_weights_only: true` writes them."""
    file = tmp_path / "weights.ckpt"
    checkpoint = load(best(trained_run))
    for key in ("optimizer_states", "lr_schedulers", "callbacks"):
        del checkpoint[key]
    torch.save(checkpoint, file)
    assert "no optimizer_states, lr_schedulers" in refused("fit", file)
    assert cmarr("validate", "--run", "run", "--ckpt_path", file) == 0
