"""The scripts that make the tables of `experiments/results`, with a `cmarr` that only notes how it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")

CMARR = """#!/usr/bin/env bash
echo "$@" >> calls
[ "$1" = report ] || exit 0
out="${@: -1}"
mkdir -p "$out/counts/CM-ARR"
touch "$out/report.md"
[[ $out == *uci_* ]] && rm -r "$out/counts" || touch "$out/counts/CM-ARR/counts.json"
"""


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    shutil.copytree(root / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "experiments" / "results").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cmarr").write_text(CMARR)
    (tmp_path / "bin" / "cmarr").chmod(0o755)
    return tmp_path


def called(project: Path, script: str, *words: str) -> list[list[str]]:
    path = {"PATH": f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([str(BASH), project / "experiments" / script, *words], check=True, env=os.environ | path)
    calls = [line.split() for line in (project / "calls").read_text().splitlines()]
    for word in (word for call in calls for word in call if word.endswith(".yaml")):
        assert (project / word).is_file(), word
    return calls


@pytest.mark.parametrize("recipe", ["published", "shared"])
def test_the_head_to_head_trains_tests_and_keeps_pages_and_counts(project: Path, recipe: str):
    settings = ["msp_improv_s_audio_text", "uci_mfeat_3_views"]
    for _ in range(2):  # again, nothing is copied into what the first time left
        calls = called(project, "head_to_head.sh", recipe, *settings)
    assert [call[0] for call in calls] == 4 * ["crossval", "baseline", "report"]
    noise = "experiments/configs/data/noise_levels.yaml"
    assert [noise in call for call in calls[:6]] == [True, True, False, False, False, False]
    for call, special in zip(calls[::3], ["_msp_improv", ""], strict=False):
        assert f"experiments/configs/sweeps/head_to_head_{recipe}{special}.yaml" in call
    results = project / "experiments" / "results"
    kept = sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    assert kept == sorted(
        [*(f"{name}_{recipe}.md" for name in settings), f"counts/{settings[0]}_{recipe}/CM-ARR/counts.json"]
    )


def test_the_pages_of_cm_arr_are_made_with_noise(project: Path):
    calls = called(project, "reproduce.sh", "iemocap_audio_text")
    assert [call[0] for call in calls] == ["crossval", "baseline", "report"]
    assert all("experiments/configs/data/noise_levels.yaml" in call for call in calls[:2])
    assert (project / "experiments" / "results" / "iemocap_audio_text.md").is_file()
