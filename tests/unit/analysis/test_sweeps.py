"""Protocols that differ in their settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cmarr_lightning.analysis.sweeps import load_sweep, plot_sweep, varied_settings
from cmarr_lightning.errors import InputError


@pytest.fixture
def make_point(make_protocol):
    """Write a protocol with a weight; its validation scores are its test scores."""

    def make(name: str, weight: float, *, skill: float = 0.5, data_checksum: str = "abc", **options: object) -> Path:
        config = {"model": {"init_args": {"weight_align": weight, "embed_dim": 8}}, "data": {"init_args": {"fold": 0}}}
        results = make_protocol(name, skill=skill, config=config, data_checksum=data_checksum, **options)
        for run in results.runs:
            shutil.copytree(run.path / "test", run.path / "validate")
        return results.folder

    return make


def test_only_settings_that_differ_are_listed(make_point, tmp_path: Path):
    make_point("a", 0.0, skill=0.1)
    make_point("b", 1.0, skill=0.9)
    sweep = load_sweep(tmp_path)
    assert varied_settings(sweep) == ["weight_align"]
    assert sweep["protocol"].tolist() == ["a", "b"]
    assert sweep["runs"].tolist() == [4, 4]
    assert sweep["uar"][0] < 0.6 < 0.8 < sweep["uar"][1]


def test_scores_are_those_of_validation(make_point, tmp_path: Path):
    folder = make_point("a", 0.0, seeds=[0], folds=[0])
    scores = (folder / "fold-0_seed-0" / "validate" / "scores.csv").read_text().splitlines()
    changed = [line if not line.startswith("mean") else "mean of incomplete,0.125,0.25,0.5,30" for line in scores]
    (folder / "fold-0_seed-0" / "validate" / "scores.csv").write_text("\n".join(changed))
    assert load_sweep(tmp_path)[["uar", "war"]].to_numpy().tolist() == [[0.25, 0.125]]


def test_a_folder_without_runs_says_so(tmp_path: Path):
    (tmp_path / "cv" / "fold-0_seed-0").mkdir(parents=True)
    with pytest.raises(InputError, match="no finished run"):
        load_sweep(tmp_path)


def test_different_data_are_not_mixed(make_point, tmp_path: Path):
    make_point("a", 0.0)
    make_point("b", 1.0, data_checksum="xyz")
    with pytest.raises(InputError, match="different data"):
        load_sweep(tmp_path)


def test_the_picture_leaves_out_what_cannot_be_compared(make_point, tmp_path: Path):
    make_point("a", 0.0)
    make_point("b", 0.5)
    make_point("c", 1.0, folds=[0])
    figure = plot_sweep(load_sweep(tmp_path))
    (axis,) = figure.axes
    assert axis.get_xlabel() == "weight_align"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.5"]


def test_a_sweep_of_one_point_says_so(make_point, tmp_path: Path):
    make_point("a", 0.0)
    with pytest.raises(InputError, match="same settings"):
        plot_sweep(load_sweep(tmp_path))
