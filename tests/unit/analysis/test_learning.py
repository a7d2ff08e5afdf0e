"""Learning curves from the logs of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmarr_lightning.analysis.counted import COUNTS, write_counts
from cmarr_lightning.analysis.learning import curve_names, learning_curves, plot_learning_curves
from cmarr_lightning.analysis.sharing import count_results, read_results
from cmarr_lightning.errors import InputError


def write_log(run: Path, version: int, text: str) -> None:
    path = run / "logs" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def values(curves, metric: str) -> list[float]:
    return curves[curves["metric"] == metric].sort_values("epoch")["value"].tolist()


def test_training_is_read_and_tests_are_not(make_protocol):
    results = make_protocol(folds=[0], seeds=[0])
    head = "epoch,step,train/loss,val/uar_missing_mean,val/uar/audio+text\n"
    write_log(results.runs[0].path, 0, head + "0,1,,0.3,0.4\n0,1,2.0,,\n1,2,,0.5,0.6\n1,2,1.0,,\n")
    write_log(results.runs[0].path, 1, "epoch,step,val/uar_missing_mean\n2,2,0.9\n")
    write_log(results.runs[0].path, 2, "")
    curves = learning_curves(results)
    assert values(curves, "train/loss") == [2.0, 1.0]
    assert values(curves, "val/uar_missing_mean") == [0.3, 0.5]
    assert curve_names(results, curves) == ["train/loss", "val/uar_missing_mean", "val/uar/audio+text"]


def test_a_resumed_training_replaces_what_it_repeated(make_protocol):
    results = make_protocol(folds=[0], seeds=[0])
    write_log(results.runs[0].path, 2, "epoch,train/loss\n0,5\n1,4\n2,3\n")
    write_log(results.runs[0].path, 10, "epoch,train/loss\n2,30\n3,20\n")
    assert values(learning_curves(results), "train/loss") == [5, 4, 30, 20]


def test_runs_without_a_log_are_told(make_protocol):
    with pytest.raises(InputError, match="no run has logs"):
        learning_curves(make_protocol(config={"model": {"class_path": "CMARRTask"}}))
    with pytest.raises(InputError, match="machine has no network"):
        learning_curves(make_protocol("machine"))


def test_a_task_that_logs_nothing_of_its_training_is_told(make_protocol):
    results = make_protocol(folds=[0], seeds=[0], config={"model": {"class_path": "mine.Task"}})
    write_log(results.runs[0].path, 0, "epoch,step,val/uar_missing_mean\n0,2,0.9\n")
    with pytest.raises(InputError, match=r"has columns train/.*self\.log"):
        learning_curves(results)


def test_counts_have_no_logs(make_protocol, tmp_path):
    write_counts(count_results(make_protocol()), tmp_path / "shared" / COUNTS)
    with pytest.raises(InputError, match="shared: holds counts, no runs"):
        learning_curves(read_results(tmp_path / "shared"))


def test_panels_say_what_they_show(make_protocol):
    results = make_protocol(folds=[0], seeds=[0])
    write_log(results.runs[0].path, 0, "epoch,train/loss,val/uar_missing_mean\n0,2,0.25\n1,1,0.5\n")
    figure = plot_learning_curves({"mine": learning_curves(results)}, ["train/loss", "val/uar_missing_mean"])
    loss, score = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert score.get_ylabel() == "UAR, %"
    assert score.lines[0].get_xydata().tolist() == [[1, 25], [2, 50]]
