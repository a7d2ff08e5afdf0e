"""Counts that can be shared say what the runs say, and nothing about an utterance."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cmarr_lightning.analysis.counted import COUNTS, read_counts, write_counts
from cmarr_lightning.analysis.evaluation import write_noisy
from cmarr_lightning.analysis.protocol import ProtocolResults, load_results
from cmarr_lightning.analysis.report import write_report
from cmarr_lightning.analysis.robustness import missing_rate_scores, noise_scores
from cmarr_lightning.analysis.sharing import count_results, read_results
from cmarr_lightning.analysis.statistics import paired_test, summarize
from cmarr_lightning.errors import InputError


def with_noise(results: ProtocolResults) -> ProtocolResults:
    for run in results.runs:
        random = np.random.default_rng((run.fold, run.seed))
        counts = {"gaussian-0.5": torch.from_numpy(random.integers(1, 9, (3, 3, 3)))}
        write_noisy(run.path / "test", counts, results.conditions, results.class_names)
    return load_results(results.folder)


def share(results: ProtocolResults, folder: Path) -> Path:
    write_counts(count_results(results), folder / COUNTS)
    return folder


def assert_same(one: ProtocolResults, other: ProtocolResults) -> None:
    """Scores, intervals, noise and missing rates are equal."""
    pd.testing.assert_frame_equal(
        summarize(one, resamples=50), summarize(other, resamples=50), atol=1e-6, check_dtype=False
    )
    pd.testing.assert_frame_equal(noise_scores(one), noise_scores(other))
    pd.testing.assert_frame_equal(missing_rate_scores(one), missing_rate_scores(other))
    np.testing.assert_array_equal(one.confusion, other.confusion)
    for run, same in zip(one.runs, other.runs, strict=True):
        mine, theirs = one.noisy_confusion(run), other.noisy_confusion(same)
        assert mine.keys() == theirs.keys()
        for name, counts in mine.items():
            np.testing.assert_array_equal(counts, theirs[name])


def test_the_file_says_what_the_runs_say(make_protocol, tmp_path: Path):
    results = with_noise(make_protocol(gaps=["0-03", "0-17"]))
    counted = read_results(share(results, tmp_path / "shared"))
    assert_same(results, counted)
    assert counted.all_conditions == ["audio", "text", "audio+text", "available"]
    for other in (make_protocol("other", random=2, gaps=["0-03", "0-17"], seeds=[0, 1, 2]),):
        expected = paired_test(results, other, resamples=100)
        shared = read_results(share(other, tmp_path / "others"))
        for first, second in ((counted, other), (results, shared), (counted, shared)):
            pd.testing.assert_frame_equal(paired_test(first, second, resamples=100), expected)


def test_runs_and_the_file_are_one_set_of_results(make_protocol, tmp_path: Path):
    every = with_noise(make_protocol("all", method="m", seeds=[0, 1, 2]))
    earlier = with_noise(make_protocol("earlier", method="m", seeds=[0, 2]))
    later = with_noise(make_protocol("later", method="m", seeds=[1]))
    share(earlier, later.folder)
    joined = read_results(later.folder)
    assert [run.name for run in joined.runs] == [run.name for run in every.runs]
    assert_same(joined, every)
    again = share(joined, tmp_path / "again")
    assert_same(read_results(again), every)


@pytest.mark.parametrize(("rate", "told"), [(0.1, False), (0.2, True)])
def test_seeds_of_other_settings_are_told(make_protocol, tmp_path: Path, rate: float, told: bool):
    """The place of the store, the fold and the seed are no settings; the digest outlives a second file."""

    def config(rate: float, store: str) -> dict[str, object]:
        return {"model": {"init_args": {"learning_rate": rate}}, "data": {"init_args": {"store": store, "fold": 0}}}

    earlier = make_protocol("earlier", method="m", seeds=[0], config=config(0.1, "here"))
    again = read_results(share(earlier, tmp_path / "again"))
    later = make_protocol("later", method="m", seeds=[1], config=config(rate, "there"))
    share(again, later.folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_results(later.folder)
    assert [("different settings" in str(one.message)) for one in caught] == ([True] if told else [])


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_a_seed_that_lacks_a_fold_of_the_file_is_unfinished(make_protocol, seeds: list[int]):
    earlier = make_protocol("earlier", method="m", seeds=[0])
    later = make_protocol("later", method="m", seeds=seeds, folds=[0])
    make_protocol("later", method="m", seeds=seeds[1:], folds=[1])
    share(earlier, later.folder)
    joined = read_results(later.folder)
    assert [run.seed for run in joined.runs] == sorted(2 * [0, *seeds[1:]])
    assert [path.name for path in joined.unfinished] == ["fold-0_seed-1"]


def test_a_run_is_believed_before_the_file(make_protocol):
    old = make_protocol("old", method="m", skill=0.2)
    new = make_protocol("new", method="m", skill=0.9, seeds=[1])
    share(old, new.folder)
    joined = read_results(new.folder)
    assert [(run.fold, run.seed) for run in joined.runs] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    np.testing.assert_array_equal(joined.confusion[2:], new.confusion)


def test_the_file_names_no_utterance_speaker_or_place(make_protocol, tmp_path: Path):
    config = {"data": {"init_args": {"store": str(tmp_path / "private")}}}
    results = make_protocol(config=config)
    text = (share(results, tmp_path / "shared") / COUNTS).read_text()
    ids = set(results.predictions["utterance_id"]) | set(results.predictions["speaker"])
    assert not [name for name in [*ids, str(tmp_path)] if name in text]
    assert set(json.loads(text)["runs"][0]["clusters"]) == {"1", "2", "3"}  # of six, those of the fold


def test_a_seed_without_all_folds_is_left_out(make_protocol, tmp_path: Path):
    make_protocol(seeds=[0])
    counted = read_results(share(make_protocol(seeds=[1], folds=[1]), tmp_path / "shared"))
    assert [run.name for run in counted.runs] == ["fold-0_seed-0", "fold-1_seed-0"]


def test_a_report_needs_no_more_than_the_files(make_protocol, tmp_path: Path):
    made = (("Our.A", 0.3), ("b", 0.9), ("c", 0.5))
    folders = [with_noise(make_protocol(name, skill=skill)).folder for name, skill in made]
    write_report(folders, tmp_path / "one", say=lambda _: None)
    shared = sorted((tmp_path / "one" / "counts").iterdir())
    assert [path.name for path in shared] == ["Our.A", "b", "c"]
    said: list[str] = []
    write_report(shared, tmp_path / "two", say=said.append)
    before, after = ((tmp_path / name / "report.md").read_text().split("## ") for name in ("one", "two"))
    for section in ("Scores", "Robustness"):
        tables = [[line for part in text if part.startswith(section) for line in part.splitlines() if "|" in line]
                  for text in (before, after)]  # fmt: skip
        assert tables[0] == tables[1]
        assert len(tables[0]) > 8
    for section in ("Reconstruction", "Learning curves", "Calibration"):
        assert any(line.startswith(f"{section}: Our.A is left out") for line in said), section
    for name in ("Our.A", "b", "c"):
        again = (tmp_path / "two" / "counts" / name / COUNTS).read_bytes()
        assert again == (tmp_path / "one" / "counts" / name / COUNTS).read_bytes()


def test_reconstruction_is_measured_on_the_runs_that_are_there(make_protocol):
    from cmarr_lightning.analysis.reconstruction import protocol_reconstruction

    earlier, later = make_protocol("earlier", method="m", seeds=[0]), make_protocol("later", method="m", seeds=[1])
    share(earlier, later.folder)
    with pytest.raises(InputError, match="later/fold-0_seed-1: m has no network"):
        protocol_reconstruction(read_results(later.folder))


@pytest.mark.parametrize("change", ["method", "data_checksum", "modalities", "protocol"])
def test_a_file_of_something_else_is_refused(make_protocol, change: str):
    one = make_protocol("one", method="m", seeds=[0])
    about = {"method": "m"} | {change: ["text", "audio"] if change == "modalities" else "other"}
    share(make_protocol("other", seeds=[1], **about), one.folder)
    with pytest.raises(InputError, match=rf"one and .*counts.json: {change} differs"):
        read_results(one.folder)


def test_a_file_of_other_utterances_is_refused(make_protocol, tmp_path: Path):
    one, fewer = make_protocol("one", method="m", seeds=[0]), make_protocol("fewer", method="m", seeds=[1], folds=[0])
    with pytest.raises(InputError, match="different numbers of test utterances"):
        paired_test(one, read_results(share(fewer, tmp_path / "fewer")))
    share(fewer, one.folder)
    with pytest.raises(InputError, match="different test utterances"):
        read_results(one.folder)


def test_speakers_of_other_numbers_of_utterances_are_refused(make_protocol, tmp_path: Path):
    one, other = make_protocol("one"), make_protocol("other")
    for run in other.runs:  # the classes of a session stay as many, those of its first and last speaker do not
        path = run.path / "test" / "predictions.parquet"
        table = pd.read_parquet(path)
        turned = table["speaker"].str.replace("A", "D")
        table.assign(speaker=turned).to_parquet(path)
    counted = read_results(share(load_results(other.folder), tmp_path / "shared"))
    with pytest.raises(InputError, match="the speakers of the utterances differ"):
        paired_test(one, counted)


def test_what_is_counted_by_speaker_is_not_drawn_by_session(make_protocol, tmp_path: Path):
    counted = read_results(share(make_protocol(), tmp_path / "shared"))
    with pytest.raises(InputError, match="counted by speaker, not by session"):
        summarize(counted, cluster="session")


def test_single_utterances_are_not_counted(make_protocol, tmp_path: Path):
    results = make_protocol()
    for run in results.runs:
        path = run.path / "test" / "predictions.parquet"
        pd.read_parquet(path).assign(speaker="", session="").to_parquet(path)
    with pytest.raises(InputError, match="counts cannot be shared"):
        count_results(load_results(results.folder))
    write_report([results.folder], tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out" / "counts").exists()


def _second_cluster(content: dict) -> list:
    return content["runs"][0]["clusters"]["2"]


DAMAGE = {
    "another format": lambda content: content.update(format=2),
    "no name": lambda content: content.pop("method"),
    "no runs": lambda content: content.update(runs=[]),
    "a run twice": lambda content: content["runs"].append(content["runs"][0]),
    "a condition less": lambda content: _second_cluster(content).pop(),
    "a negative count": lambda content: _second_cluster(content)[0][0].__setitem__(0, -1),
    "half an utterance": lambda content: _second_cluster(content)[0][0].__setitem__(0, 0.5),
    "a cluster too many": lambda content: content["runs"][0]["clusters"].update({"9": _second_cluster(content)}),
    "by utterance": lambda content: content.update(cluster="utterance"),
    "a rate less": lambda content: content["rates"].pop(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(make_protocol, tmp_path: Path, damage: str):
    path = share(make_protocol(), tmp_path / "shared") / COUNTS
    content = json.loads(path.read_text())
    DAMAGE[damage](content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"{COUNTS}: .*\n?.*"):
        read_counts(path.parent)


def test_half_a_file_is_named(make_protocol, tmp_path: Path):
    path = share(make_protocol(), tmp_path / "shared") / COUNTS
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match=f"{COUNTS}: cannot be read"):
        read_counts(path.parent)
