"""The quality report: probes tell signal from chance, and the page shows it."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.analysis.quality_page import quality_page
from cmarr_lightning.commands import run_command
from cmarr_lightning.data.quality import assess_quality
from cmarr_lightning.data.store import FeatureStore

N = 300
pytest.importorskip("sklearn")


@pytest.fixture
def made(make_store: Callable[..., FeatureStore]) -> Callable[..., FeatureStore]:
    """Audio tells the class, video is noise; labels can be shuffled."""

    def make(*, shuffled: bool = False, session: bool = True, label: str = "<sad>") -> FeatureStore:
        random = np.random.default_rng(0)
        truth = np.arange(N) % 3
        audio = [random.normal(size=(2 + i % 5, 4)) + 3 * np.eye(3, 4)[truth[i]] for i in range(N)]
        for frames in audio:
            frames[:, 3] = 7  # a constant column
        audio[0][0, 2] = np.nan
        video = [None if i < 5 else random.normal(size=6) for i in range(N)]
        shown = random.permutation(truth) if shuffled else truth
        columns = {
            "label": [("happy", label, "angry")[t] for t in shown],
            "session": [f"S{i * 4 // N}" for i in range(N)] if session else [""] * N,
            "split": [("train", "val", "test")[i // 10 % 3] for i in range(N)],
        }
        return make_store({"audio": audio, "video": video}, columns)

    return make


@pytest.mark.parametrize("session", [True, False])
def test_probes_tell_a_modality_with_signal_from_one_without(made: Callable[..., FeatureStore], session: bool) -> None:
    report = assess_quality(made(session=session))
    audio, video = report.probes
    assert audio.uar > 0.9
    assert not audio.at_chance
    assert abs(video.uar - 1 / 3) < 0.1
    assert video.at_chance
    assert (audio.utterances, video.utterances) == (N, N - 5)
    assert ("session" in report.probe_groups) == session
    text = " ".join(report.warnings)
    assert "video is at chance" in text
    assert "shuffled" not in text
    assert "audio: 1 of 4 columns are constant" in text
    assert "audio: 1 of 4 columns are incomplete (NaN)" in text
    assert "video: missing for 5 of 300" in text


def test_shuffled_labels_are_noticed(made: Callable[..., FeatureStore]) -> None:
    report = assess_quality(made(shuffled=True))
    assert all(probe.at_chance for probe in report.probes)
    assert "the labels look shuffled" in report.warnings[-1]


class _Balanced(HTMLParser):
    """Collects the text and checks that what opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_escapes_what_the_data_say(made: Callable[..., FeatureStore]) -> None:
    page = quality_page(assess_quality(made(label="<script>alert(1)</script>")))
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    text = " ".join(parser.text)
    assert "<script" not in page
    assert "<script>alert(1)</script>" in text  # as text
    assert "https:" not in page
    assert page.count("<rect") >= 20
    for word in ("session", "split", "train", "S3", "constant columns", "audio+video"):
        assert word in text


def test_the_command_writes_the_page_and_prints_the_warnings(
    made: Callable[..., FeatureStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = made()
    assert run_command(["inspect", str(store.path), "--html", str(tmp_path / "new/report.html")]) == 0
    printed = capsys.readouterr().out
    assert "warning: video is at chance" in printed
    assert (tmp_path / "new/report.html").read_text().startswith("<!doctype html>")


def test_made_up_data_are_marked_in_every_heading(tmp_path: Path) -> None:
    assert run_command(["synthesize", str(tmp_path / "store")]) == 0
    page = quality_page(assess_quality(FeatureStore.open(tmp_path / "store")))
    assert page.count("(synthetic)</h") == page.count("</h1>") + page.count("</h2>")


def test_one_label_gives_tables_but_no_probes(make_store: Callable[..., FeatureStore]) -> None:
    store = make_store({"audio": [np.ones(2)] * 4}, {"label": ["sad"] * 4})
    report = assess_quality(store)
    assert report.probes == ()
    assert "no probes" in quality_page(report)


def test_without_scikit_learn_the_lack_of_probes_is_a_warning(
    made: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmarr_lightning.data.quality.find_spec", lambda name: None)
    report = assess_quality(made(session=True))
    assert report.probes == ()
    assert "scikit-learn is not installed" in report.probe_groups
    assert any("no probe tells" in text and "'.[baselines]'" in text for text in report.warnings)
