"""Run folders as tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmarr_lightning.analysis.protocol import RESULT_COLUMNS, load_results, write_results
from cmarr_lightning.analysis.runs import read_runs
from cmarr_lightning.errors import InputError


def test_the_tidy_table_holds_every_score_of_every_run(make_protocol):
    results = make_protocol()
    table = results.table
    assert list(table.columns) == RESULT_COLUMNS
    assert len(table) == 4 * 4 * 3  # runs x (conditions and mean) x metrics
    assert table["run"].unique().tolist() == ["fold-0_seed-0", "fold-1_seed-0", "fold-0_seed-1", "fold-1_seed-1"]
    scores = pd.read_csv(results.folder / "fold-1_seed-0" / "test" / "scores.csv").set_index("condition")
    one = table[(table["run"] == "fold-1_seed-0") & (table["metric"] == "uar")].set_index("condition")
    pd.testing.assert_series_equal(one["value"], scores["uar"], check_names=False)
    assert (table["n"] == 30).all()
    assert table["synthetic"].all()


def test_results_csv_is_the_table(make_protocol):
    results = make_protocol()
    write_results(results.folder)
    written = pd.read_csv(results.folder / "results.csv")
    pd.testing.assert_frame_equal(written, results.table.reset_index(drop=True), check_dtype=False, atol=1e-6)


def test_results_csv_of_no_run_has_its_columns(tmp_path: Path):
    write_results(tmp_path)
    assert pd.read_csv(tmp_path / "results.csv").columns.tolist() == RESULT_COLUMNS


def test_confusions_and_predictions_agree(make_protocol):
    results = make_protocol(gaps=["0-03", "0-17"])
    assert results.all_conditions == ["audio", "text", "audio+text", "available"]
    for run, counts in zip(results.runs, results.confusion, strict=True):
        predictions = results.predictions
        rows = predictions[(predictions["fold"] == run.fold) & (predictions["seed"] == run.seed)]
        for condition, expected in zip(results.all_conditions, counts, strict=True):
            part = rows[rows["condition"] == condition]
            found = pd.crosstab(part["true"], part["predicted"]).to_numpy()
            np.testing.assert_array_equal(found, expected)


def test_a_fold_without_gaps_counts_as_available_too(make_protocol):
    results = make_protocol(gaps=["0-03"], seeds=[0])
    assert results.confusion.sum((-2, -1)).tolist() == [[29, 29, 29, 30], [30, 30, 30, 30]]
    np.testing.assert_array_equal(results.confusion[1, 3], results.confusion[1, 2])
    scores = results.table.query("fold == 1 and metric == 'war'").set_index("condition")["value"]
    assert scores["available"] == scores["audio+text"]


def test_unfinished_runs_are_named_and_left_out(make_protocol):
    folder = make_protocol(seeds=[0]).folder
    (folder / "fold-0_seed-1").mkdir()
    (folder / "fold-1_seed-1").mkdir()
    (folder / "fold-1_seed-1" / "about.json").write_text(json.dumps({"finished": ["fit"]}))
    results = load_results(folder)
    assert [path.name for path in results.unfinished] == ["fold-0_seed-1", "fold-1_seed-1"]
    assert len(results.runs) == 2
    assert read_runs(folder)[1] == list(results.unfinished)


def test_folds_and_seeds_are_ordered_as_numbers(make_protocol):
    results = make_protocol(folds=[10, 2], seeds=[0])
    assert [run.fold for run in results.runs] == [2, 10]


@pytest.mark.parametrize("half", [False, True])
def test_a_folder_without_results_is_refused(tmp_path: Path, half: bool):
    if half:
        (tmp_path / "fold-0_seed-0").mkdir()
    message = "no finished run" + (r" \(1 without test scores\)" if half else "") + r"\. Remedy"
    with pytest.raises(InputError, match=message):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("data_checksum", "other"), ("class_names", ["glad", "calm", "hurt"]), ("method", "other")]
)
def test_runs_that_do_not_belong_together_are_refused(make_protocol, key: str, value: object):
    folder = make_protocol(seeds=[0]).folder
    for path in (folder / "fold-1_seed-0").rglob("about.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=f"{key} differs between fold-0_seed-0 .* and fold-1_seed-0"):
        load_results(folder)


@pytest.mark.parametrize(("key", "value"), [("data_checksum", "other"), ("fold", 0), ("protocol", "speaker")])
def test_scores_of_other_data_than_the_runs_are_left_out(make_protocol, key: str, value: object):
    """Such as `cmarr test --run` on a run of a protocol leaves them."""
    folder = make_protocol(seeds=[0, 1]).folder
    path = folder / "fold-1_seed-0" / "test" / "about.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    results = load_results(folder)
    assert results.whole_seeds == [1]
    assert [path.name for path in results.unfinished] == ["fold-1_seed-0"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("about.json", "{"),
        ("about.json", '{"finished": ["test"]}'),
        ("test/scores.csv", None),
        ("test/confusion.csv", ""),
        ("test/confusion.csv", "condition,true,predicted,count\naudio,calm,calm,3\n"),
    ],
)
def test_a_damaged_run_is_named_and_left_out(make_protocol, file: str, content: str | None):
    folder = make_protocol(seeds=[0]).folder
    path = folder / "fold-1_seed-0" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    results = load_results(folder)
    assert [run.name for run in results.runs] == ["fold-0_seed-0"]
    assert results.unfinished == (folder / "fold-1_seed-0",)


def test_missing_predictions_are_named(make_protocol):
    results = make_protocol(keep_predictions=False)
    assert not results.has_predictions
    with pytest.raises(InputError, match=r"fold-0_seed-0.test.predictions\.parquet: not found"):
        _ = results.predictions
