"""The report: what its three files say, and that the page needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cmarr_lightning.analysis.protocol import load_results
from cmarr_lightning.analysis.report import read_all, write_report
from cmarr_lightning.errors import InputError

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects tags, addresses and text; notices tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.bold: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "action"}]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "b":
            self.bold.append(data)


@pytest.fixture(scope="module")
def report(make_shared_protocol) -> tuple[Path, list[str]]:
    """Two methods, one of them clearly better, with names that need escaping. To be read only."""
    weak = make_shared_protocol("weak", skill=0.1, confidence=0.8, method="weak_<b>&|$x")
    strong = make_shared_protocol("strong", skill=0.95, random=1, confidence=0.9)
    said: list[str] = []
    out = weak.folder.parent / "out"
    write_report([weak.folder, strong.folder], out, say=said.append)
    return out, said


def read_page(folder: Path) -> Page:
    page = Page()
    page.feed((folder / "report.html").read_text())
    page.close()
    return page


def test_the_page_is_whole_and_needs_no_network(report):
    page = read_page(report[0])
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "@import" not in page.text
    assert "url(" not in page.text
    assert not re.search(r"<(script|link|iframe|object)", (report[0] / "report.html").read_text())


def test_pictures_are_embedded_and_described(report):
    images = read_page(report[0]).images
    assert len(images) == 6  # WAR, UAR, one confusion picture per method, robustness, calibration
    assert all(image["alt"] and image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert len(list((report[0] / "figures").glob("*.pdf"))) == 6


def test_the_supported_lead_is_bold_in_all_three_files(report):
    folder = report[0]
    bold = read_page(folder).bold
    assert bold
    markdown, tex = ((folder / f"report.{form}").read_text() for form in ("md", "tex"))
    assert f"**{bold[0]}**" in markdown
    assert rf"\textbf{{{bold[0]}}}" in tex
    first = next(line for line in markdown.splitlines() if line.startswith("| audio "))
    assert "**" not in first.split("|")[2]
    assert "**" in first.split("|")[3]


def test_every_table_names_synthetic_data(report):
    folder = report[0]
    page = (folder / "report.html").read_text()
    captions = re.findall(r"<caption>(.*?)</caption>", page)
    assert len(captions) >= 8
    assert all("synthetic" in caption for caption in captions)
    tex = re.findall(r"\\caption\{(.*)\}", (folder / "report.tex").read_text())
    assert len(tex) >= 7
    assert all("synthetic" in caption for caption in tex)


def test_names_are_escaped(report):
    folder = report[0]
    assert "weak_<b>&|$x" in read_page(folder).text
    assert r"weak\_$<$b$>$\&|\$x" in (folder / "report.tex").read_text()
    assert r"weak\_\<b>&\|$x" in (folder / "report.md").read_text()


def test_markdown_and_latex_tables_have_equally_many_columns_in_every_row(report):
    blocks = (report[0] / "report.md").read_text().split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) >= 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1
    for tabular in re.findall(r"\\begin\{tabular\}\{(.*?)\}(.*?)\\end", (report[0] / "report.tex").read_text(), re.S):
        rows = [row for row in tabular[1].splitlines() if row.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(tabular[0]) - 1}


def test_the_same_results_give_the_same_files(report, tmp_path: Path):
    folders = [report[0].parent / name for name in ("weak", "strong")]
    write_report(folders, tmp_path / "again", say=lambda _: None)
    for path in sorted(report[0].rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(report[0])).read_bytes(), path


def test_what_cannot_be_computed_is_said(report):
    folder, said = report
    assert any("Reconstruction: strong is left out" in line for line in said)
    assert any("Learning curves: strong is left out" in line for line in said)
    assert "strong has no network" in read_page(folder).text


def test_a_method_without_predictions_has_scores_but_no_bold(make_protocol, tmp_path: Path):
    folders = [make_protocol("a", skill=0.1).folder, make_protocol("b", skill=0.9, keep_predictions=False).folder]
    said: list[str] = []
    write_report(folders, tmp_path / "out", say=said.append)
    page = read_page(tmp_path / "out")
    assert page.bold == []
    assert "there is no paired test" in page.text
    assert any("b kept no predictions" in line for line in said)


def test_six_modalities_stay_legible(make_protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"m{i}" for i in range(6)]
    from cmarr_lightning.modalities import all_conditions, condition_name

    conditions = [condition_name(c) for c in all_conditions(names)]
    monkeypatch.setattr(f"{make_protocol.__module__}.CONDITIONS", conditions)
    results = make_protocol("wide", modalities=names, num_incomplete=62)
    write_report([results.folder], tmp_path / "out", say=lambda _: None)
    page = read_page(tmp_path / "out")
    assert "Pictures show 16 of 63 conditions" in page.text
    for condition in conditions:
        assert f"| {condition} |" in (tmp_path / "out" / "report.md").read_text()


def test_empty_and_half_written_folders_are_named_and_skipped(make_protocol, tmp_path: Path):
    results = make_protocol("a")
    (results.folder / "fold-0_seed-9").mkdir()
    (tmp_path / "empty").mkdir()
    found, skipped = read_all([tmp_path / "empty", results.folder])
    assert [one.folder for one in found] == [results.folder]
    assert any(f"{tmp_path / 'empty'}: no finished run" in line for line in skipped)
    assert any("fold-0_seed-9: empty, unfinished or damaged" in line for line in skipped)


def test_nothing_to_report_on_is_an_error(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished run"):
        read_all([tmp_path / "empty"])
    with pytest.raises(InputError, match="no such folder"):
        read_all([tmp_path / "typo"])


def test_results_that_cannot_be_compared_leave_no_report(make_protocol, tmp_path: Path):
    folders = [make_protocol("a").folder, make_protocol("b", data_checksum="xyz").folder]
    with pytest.raises(InputError, match="different data checksums"):
        write_report(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_support_vector_machine_stands_beside_a_network(
    tiny_protocol: Path, tiny_store: Path, config: Path, cmarr: Callable[..., int], tmp_path: Path
):
    pytest.importorskip("sklearn")
    assert cmarr("baseline", "-c", config, "--out", "svm", "--folds", "0,1,2", "--", "--data.store", tiny_store) == 0
    said: list[str] = []
    write_report([tmp_path / "svm", tiny_protocol], tmp_path / "out", say=said.append)
    assert any("RBF-SVM has no network" in line for line in said)
    assert any("RBF-SVM gives classes without probabilities" in line for line in said)
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| condition (present) | RBF-SVM | CM-ARR | N |" in markdown
    assert "Difference of UAR to RBF-SVM on synthetic tiny (synthetic data)" in markdown


def test_a_trained_protocol_has_every_section(tiny_protocol: Path, tmp_path: Path):
    said: list[str] = []
    write_report([tiny_protocol], tmp_path / "out", say=said.append)
    page = read_page(tmp_path / "out")
    assert not [line for line in said if "left out" in line]
    for heading in ("Scores", "Confusion matrices", "Robustness", "Reconstruction", "Learning curves", "Calibration"):
        assert heading in page.text
    assert "Definitions" in page.text
    assert "relative MSE" in page.text
    assert load_results(tiny_protocol).about["data_checksum"][:12] in page.text
    assert len(page.images) == 6
