"""A method of somebody's own: the example of docs/your-own-task.md, as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cmarr_lightning.crossval.plan import name_method
from cmarr_lightning.errors import InputError

Command = Callable[..., int]


@pytest.fixture
def words(root: Path, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of `cmarr fit`; the files of the example lie in the folder `mine`."""
    text = (root / "docs" / "your-own-task.md").read_text(encoding="utf-8")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, kind in (("my_task.py", "python"), ("my_task.yaml", "yaml")):
        (block,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
        (folder / name).write_text(block, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    return ["-c", str(config), "-c", str(folder / "my_task.yaml"), "--run", "run"]


def test_the_example_is_trained_tested_and_used(
    cmarr: Command, words: list[str], tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path / "mine")
    assert cmarr("fit", *words, "--data.store", tiny_store) == 0
    assert cmarr("test", "--run", "run") == 0
    scores = pd.read_csv(tmp_path / "run" / "test" / "scores.csv").set_index("condition")
    assert set(scores["n"]) == {60}
    assert scores["war"].between(0, 1).all()
    assert cmarr("predict", "--run", "run") == 0
    assert pd.read_parquet(tmp_path / "run" / "predictions.parquet").notna().all(axis=None)
    log = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv")
    assert log["train/loss"].notna().any()
    assert name_method({"model": {"class_path": "my_task.LateFusionTask"}}) == "late fusion"


def test_a_module_that_python_does_not_find_is_told(
    cmarr: Command, words: list[str], tiny_store: Path, capsys: pytest.CaptureFixture[str]
):
    assert cmarr("fit", *words, "--data.store", tiny_store) == 2
    assert "No module named 'my_task'. Remedy: name the folder of the module in PYTHONPATH" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"my_task.LateFusionTask: cannot be imported.*PYTHONPATH"):
        name_method({"model": {"class_path": "my_task.LateFusionTask"}})


def test_a_task_whose_checkpoints_could_not_be_loaded_is_refused(
    cmarr: Command,
    words: list[str],
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    source = tmp_path / "mine" / "my_task.py"
    source.write_text(re.sub(r" *self\.save_hyperparameters\(\).*\n", "", source.read_text()))
    monkeypatch.syspath_prepend(tmp_path / "mine")
    assert cmarr("fit", *words, "--data.store", tiny_store) == 2
    assert "Remedy: call self.save_hyperparameters() in its constructor" in capsys.readouterr().err
