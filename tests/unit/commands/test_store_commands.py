"""`cmarr prepare`, `inspect` and `synthesize`, driven in process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.commands import COMMANDS, prepare, run_command, synthesize
from cmarr_lightning.data.corpora.synthetic import PRESETS
from cmarr_lightning.data.importers import FORMATS, LABEL_READERS
from cmarr_lightning.data.store import FeatureStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    text = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, np.nan]], "f4")
    np.savez(folder / "features.npz", audio=np.eye(3, 4, dtype="f4"), text=text)
    (folder / "metadata.csv").write_text("utterance_id,session,label\na,S1,sad\nb,S1,[red]\nc,S2,\n")
    return folder


def test_prepare_writes_a_store_and_says_what_came_in(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    assert run_command(["prepare", "arrays", str(source), str(out), "--name", "my data"]) == 0
    store = FeatureStore.open(out)
    assert (store.name, store.modalities) == ("my data", ("audio", "text"))
    printed = capsys.readouterr().out
    assert f"{out}: 3 utterances\n" in printed
    assert "text: vector, 2-d, 2 utterances, 1 more had NaN values only and count as missing, 1 NaN" in printed


def test_prepare_takes_named_modalities_and_overwrites_on_request(source: Path, tmp_path: Path) -> None:
    command = ["prepare", "arrays", str(source), str(tmp_path / "store"), "--modalities", "audio"]
    assert run_command(command) == 0
    assert run_command([*command[:-1], "audio, text"]) == 2
    assert run_command([*command[:-1], "audio, text", "--overwrite"]) == 0
    assert FeatureStore.open(tmp_path / "store").modalities == ("audio", "text")


def test_options_may_stand_anywhere(source: Path, tmp_path: Path) -> None:
    options = [["--name", "x"], ["--modalities", "audio"], ["--overwrite"]]
    for words in (["arrays", str(source), str(tmp_path / "store")], [str(source), str(tmp_path / "store")]):
        for gap in range(len(words) + 1):
            command = [*words[:gap], *(word for option in options for word in option), *words[gap:]]
            assert run_command(["prepare", *command]) == 0
        spread = [word for pair in zip(words, options, strict=False) for word in (pair[0], *pair[1])]
        assert run_command(["prepare", *spread, *words[len(options) :], "--overwrite"]) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert (store.name, store.modalities) == ("x", ("audio",))
    assert run_command(["prepare", "--overwrite", "--", str(source), str(tmp_path / "store")]) == 0


def test_a_second_run_on_the_same_source_does_nothing_and_says_so(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    command = ["prepare", str(source), str(out)]
    assert run_command(command) == 0
    first = capsys.readouterr().out
    assert "format arrays: features.npz" in first
    assert "unchanged" not in first
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert run_command(command) == 0
    assert "unchanged: the store was made from this source as it is now" in capsys.readouterr().out
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    (source / "metadata.csv").write_text("utterance_id,label\na,sad\nb,sad\nc,sad\n")
    assert run_command(command) == 2
    assert run_command([*command, "--overwrite"]) == 0
    assert FeatureStore.open(out).manifest["label"].tolist() == ["sad"] * 3


def test_inspect_prints_every_table(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "store"
    run_command(["prepare", "arrays", str(source), str(out)])
    capsys.readouterr()
    assert run_command(["inspect", str(out)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["audio", "vector", "4", "float32", "3", "0", "0", "3"] in rows
    assert ["text", "vector", "2", "float32", "2", "1", "1", "2"] in rows
    assert ["text", "1", "1", "(1)", "-", "1", "(1)"] in rows
    assert ["audio", "0", "-", "-", "1", "(3)"] in rows
    assert ["audio+text", "2"] in rows
    assert ["session", "(none)", "[red]", "sad", "total"] in rows  # a label in brackets is no markup
    assert ["S1", "0", "1", "1", "2"] in rows
    assert ["total", "1", "1", "1", "3"] in rows


def test_every_table_of_a_synthetic_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["synthesize", str(tmp_path / "store"), "--preset", "tiny", "--seed", "3"]) == 0
    assert "240 utterances (synthetic)" in capsys.readouterr().out
    assert run_command(["inspect", str(tmp_path / "store")]) == 0
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if line[:1].isalpha() and "made from" not in line]
    titles = [title for title in titles if "checksums" not in title]
    assert len(titles) == 5
    assert all("(synthetic)" in title for title in titles)
    assert "--seed 3" in printed
    header = next(line for line in printed.splitlines() if "median" in line)
    assert header.split() == ["modality", "min", "25%", "median", "75%", "99%", "max"]


def test_errors_of_the_input_are_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["inspect", str(tmp_path / "absent")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cmarr: error: ")
    assert captured.err.count("\n") == 1
    assert "absent: no feature store" in captured.err


def test_inspect_refuses_a_tampered_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["synthesize", str(tmp_path / "store")])
    np.lib.format.open_memmap(tmp_path / "store" / "text.values.npy", mode="r+")[0, 0] = 99
    assert run_command(["inspect", str(tmp_path / "store")]) == 2
    assert "text.values.npy: checksum differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["prepare", "zip", "a", "b"],
        ["prepare", "a"],
        ["--", "inspect"],
        ["synthesize", "a", "--preset", "mosi"],
        ["inspect"],
    ],
)
def test_arguments_that_do_not_parse_exit_with_code_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(argv)
    assert caught.value.code == 2


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from cmarr_lightning.commands import run_command\n"
        "try: run_command(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(','.join({'torch', 'pandas', 'numpy', 'rich', 'lightning'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_choices_are_those_of_the_package() -> None:
    assert tuple(FORMATS) == prepare.FORMATS
    assert tuple(LABEL_READERS) == prepare.LABELS
    assert tuple(PRESETS) == synthesize.PRESETS
