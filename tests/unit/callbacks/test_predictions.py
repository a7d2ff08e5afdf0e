from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cmarr_lightning.callbacks import PredictionWriter
from cmarr_lightning.errors import InputError

Command = Callable[..., int]


@pytest.mark.parametrize("file", ["p.parquet", "p.csv"])
def test_the_ending_of_the_file_is_its_format(file: str):
    assert PredictionWriter(file=file).file == file


@pytest.mark.parametrize("file", ["p", "p.txt", "p.pkl", ".csv.gz"])
def test_other_endings_are_refused(file: str):
    with pytest.raises(InputError, match=r"predictions\.file"):
        PredictionWriter(file=file)


def test_other_endings_are_refused_on_the_command_line(
    cmarr: Command, trained_run: Path, capsys: pytest.CaptureFixture[str]
):
    assert cmarr("predict", "--run", "run", "--predictions.file", "p.pkl") == 2
    assert "predictions.file='p.pkl'" in capsys.readouterr().err


def test_a_failed_write_leaves_the_earlier_predictions(
    cmarr: Command, trained_run: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("predict", "--run", "run", "--predictions.file", "predictions.csv")
    assert cmarr(*words) == 0
    target = trained_run / "predictions.csv"
    of_yesterday = target.read_bytes()
    before = sorted(path.name for path in trained_run.iterdir())

    def full_disk(self: pd.DataFrame, path: Path, **_: object) -> None:
        Path(path).write_text("half a li")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OSError, match="no space"):
        cmarr(*words)
    assert target.read_bytes() == of_yesterday
    assert sorted(path.name for path in trained_run.iterdir()) == before


def test_a_file_of_something_else_is_not_replaced(
    cmarr: Command, trained_run: Path, capsys: pytest.CaptureFixture[str]
):
    for name, text in (("notes.csv", "a,b\n1,2\n"), ("notes.parquet", "no table")):
        (trained_run / name).write_text(text)
        assert cmarr("predict", "--run", "run", "--predictions.file", name) == 2
        assert f"{name}: no table of predictions" in capsys.readouterr().err
        assert (trained_run / name).read_text() == text
