"""The summary for the terminal and as Markdown."""

from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from cmarr_lightning.analysis.statistics import summarize
from cmarr_lightning.analysis.summary import (
    conclude,
    conclude_validation,
    conclude_variants,
    markdown_summary,
)


def test_a_summary_is_written_and_printed(make_protocol):
    folder = make_protocol(seeds=[0, 1]).folder
    stream = io.StringIO()
    conclude(folder, "cmarr crossval -c mine.yaml", Console(file=stream, width=80))
    summary = pd.read_csv(folder / "summary.csv")
    assert summary["low"].notna().all()
    text = (folder / "summary.md").read_text()
    row = summary.query("condition == 'audio+text' and metric == 'uar'").iloc[0]
    mean = f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}"
    pooled = f"{100 * row['pooled']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    line = next(line for line in text.splitlines() if line.startswith("| audio+text |"))
    assert mean in line
    assert pooled in line
    assert line.endswith("| 60 |")
    printed = stream.getvalue()
    assert mean in printed
    assert pooled in printed
    assert str(folder / "results.csv") in printed.replace("\n", "")


def test_variants_are_summarised_each_and_listed_in_one_table(make_protocol):
    good, bad = make_protocol("good", skill=0.9, seeds=[0]), make_protocol("bad", skill=0.1, seeds=[0])
    stream = io.StringIO()
    conclude_variants([good.folder, bad.folder], "cmarr crossval --variants mine.yaml", Console(file=stream, width=80))
    rows = {line.split()[0]: line.split()[1:] for line in stream.getvalue().splitlines() if line.strip()}
    for results in (good, bad):
        table = results.table.query("stage == 'test' and condition == 'mean of incomplete'")
        war, uar = (table.query(f"metric == '{metric}'")["value"].mean() for metric in ("war", "uar"))
        assert rows[results.folder.name] == ["2", "-", f"{100 * war:.1f}", f"{100 * uar:.1f}"]
        assert "cmarr crossval --variants mine.yaml" in (results.folder / "summary.md").read_text()
    assert float(rows["good"][3]) > float(rows["bad"][3]) + 30


def test_validation_scores_are_listed_without_a_look_at_the_test_fold(make_protocol):
    folder = make_protocol(seeds=[0]).folder
    expected = {}
    for run in folder.iterdir():
        (run / "test").rename(run / "validate")
        scores = pd.read_csv(run / "validate" / "scores.csv").set_index("condition")
        for name in ("mean of incomplete", "audio+text"):
            expected.setdefault(name, []).append(100 * scores.loc[name, ["war", "uar"]])
    stream = io.StringIO()
    conclude_validation([folder], Console(file=stream))
    for name, each in expected.items():
        war, uar = sum(each) / 2
        assert f"mine 2 {name} {war:.1f} {uar:.1f}" in " ".join(stream.getvalue().split())


def test_markdown_says_where_the_numbers_come_from(make_protocol):
    results = make_protocol(seeds=[0, 2])
    (results.folder / "fold-1_seed-5").mkdir()
    results = make_protocol(seeds=[0, 2], commit="c0ffee")
    text = markdown_summary(results, summarize(results, intervals=False), "cmarr crossval -c mine.yaml")
    for words in (
        *("# mine on made up, 2 folds, 2 seeds (synthetic data)", "- command: `cmarr crossval -c mine.yaml`"),
        *("- commit: c0ffee", "- packages: python 3", "- data: made up, checksum abc", "- synthetic data: yes"),
        *("- folds: 0, 1 (session)", "- seeds: 0, 2", "- runs: 4", "- unfinished, left out: fold-1_seed-5"),
    ):
        assert f"\n{words}\n" in f"\n{text}"
    assert "interval" not in text


def test_without_predictions_there_are_no_intervals(make_protocol):
    folder = make_protocol(keep_predictions=False).folder
    conclude(folder, "cmarr crossval", Console(file=io.StringIO()))
    assert pd.read_csv(folder / "summary.csv")["low"].isna().all()
    assert "[" not in (folder / "summary.md").read_text()


def test_real_data_are_not_called_synthetic(make_protocol):
    results = make_protocol(synthetic=False)
    text = markdown_summary(results, summarize(results, intervals=False), "cmarr crossval")
    assert "(synthetic" not in text
    assert "- synthetic data: no" in text
