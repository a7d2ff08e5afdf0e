"""Protocols that differ in their settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

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


def lines(figure: Figure) -> list[tuple[str, list[str], list[float]]]:
    """Get label, ticks and drawn UAR of every panel."""
    return [
        (axis.get_xlabel(), [t.get_text() for t in axis.get_xticklabels()], list(axis.get_lines()[0].get_ydata()))
        for axis in figure.axes
    ]


def sweep_of(*points: tuple[float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(points, columns=["weight_align", "weight_refine", "uar"])
    return table.assign(protocol="p", war=table["uar"], uar_std=0.0, war_std=0.0, runs=3)


def test_one_setting_at_a_time_leaves_the_others_at_their_default():
    one_at_a_time = sweep_of((0.5, 0.1, 0.6), (0.0, 0.1, 0.5), (1.0, 0.1, 0.4), (0.5, 2.0, 0.2))
    assert lines(plot_sweep(one_at_a_time)) == [
        ("weight_align", ["0", "0.5", "1"], pytest.approx([50, 60, 40])),
        ("weight_refine", ["0.1", "2"], pytest.approx([60, 20])),
    ]


def test_a_grid_is_averaged_over_the_other_settings():
    grid = sweep_of((0.0, 0.1, 0.5), (0.0, 1.0, 0.3), (1.0, 0.1, 0.4), (1.0, 1.0, 0.2))
    assert lines(plot_sweep(grid)) == [
        ("weight_align", ["0", "1"], pytest.approx([40, 30])),
        ("weight_refine", ["0.1", "1"], pytest.approx([45, 25])),
    ]


def test_a_sweep_of_one_point_says_so(make_point, tmp_path: Path):
    make_point("a", 0.0)
    with pytest.raises(InputError, match="same settings"):
        plot_sweep(load_sweep(tmp_path))
