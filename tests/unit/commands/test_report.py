"""`cmarr report`: arguments, exit codes, what is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_it_says_where_the_report_is(
    tiny_protocol: Path, cmarr: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    assert cmarr("report", tiny_protocol, "--out", "report") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [str(Path("report") / f"report.{form}") for form in ("html", "md", "tex")]
    assert all(Path(line).is_file() for line in printed[-3:])


@pytest.mark.parametrize(("name", "message"), [("typo", "typo: no such folder"), ("empty", "empty: no finished run")])
def test_bad_input_ends_with_code_2(
    name: str, message: str, cmarr: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    assert cmarr("report", name, "--out", "report") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
