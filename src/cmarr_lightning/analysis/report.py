"""A report on one or more methods: `report.html`, `report.md`, `report.tex` and its pictures as PDF."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from cmarr_lightning.analysis import report_tables as tables
from cmarr_lightning.analysis.calibration import (
    FEWEST,
    calibration_bins,
    calibration_errors,
    plot_calibration,
)
from cmarr_lightning.analysis.comparison import METRICS, Comparison, compare, plot_scores
from cmarr_lightning.analysis.counted import COUNTS, write_counts
from cmarr_lightning.analysis.learning import curve_names, learning_curves, plot_learning_curves
from cmarr_lightning.analysis.plots import plot_confusions
from cmarr_lightning.analysis.protocol import ProtocolResults, load_results
from cmarr_lightning.analysis.reconstruction import protocol_reconstruction
from cmarr_lightning.analysis.report_tables import ReportTable
from cmarr_lightning.analysis.robustness import missing_masks, missing_rate_scores, noise_scores, plot_robustness
from cmarr_lightning.analysis.runs import read_runs
from cmarr_lightning.analysis.sharing import can_be_shared, count_results, read_results
from cmarr_lightning.analysis.style import shown_conditions
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing

__all__ = ["MASKS", "Section", "read_all", "write_report"]

T = TypeVar("T")
_FORMATS = ("html", "md", "tex")
MASKS = "missing_masks.csv"
_UNSAFE = re.compile(r"[^\w. ()+-]+")  # what a folder may not be called everywhere
_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "\u2212": "$-$",
}


@dataclass
class Picture:
    """A figure of a section.

    Attributes:
        key: Name of its file.
        caption: What it shows.
        svg: The picture as a data address.
    """

    key: str
    caption: str
    svg: str


@dataclass
class Section:
    """A part of the report.

    Attributes:
        title: Heading.
        notes: Sentences below it: what is left out, and why.
        tables: Its tables.
        pictures: Its pictures.
    """

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def read_all(folders: Sequence[str | Path]) -> tuple[list[ProtocolResults], list[str]]:
    """Read the results to report on.

    Returns:
        The results, and a sentence on each folder or run that is skipped.

    Raises:
        InputError: No such folder, no finished run in any, or runs of different methods or data in one folder.
    """
    results, skipped = [], []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder", remedy="name folders written by `cmarr crossval` or `cmarr baseline`"
            )
        finished, unfinished = read_runs(folder)
        if not (finished or (folder / COUNTS).is_file()):
            skipped.append(f"{folder}: no finished run; skipped")
            continue
        results.append(read_results(folder))
        skipped += [
            f"{path}: empty, unfinished or damaged; skipped (run the protocol again to finish it)"
            for path in unfinished
        ]
    if not results:
        load_results(folders[0])  # says what is wrong
    return results, skipped


def write_report(folders: Sequence[str | Path], out: str | Path, *, say: Callable[[str], None] = print) -> list[Path]:
    """Report on the results of `cmarr crossval` and `cmarr baseline`.

    Args:
        folders: Of one protocol each, all of the same data, classes, conditions and test rows.
        out: Folder of the report.
        say: Called with what is skipped or cannot be computed.

    Returns:
        The files `report.html`, `report.md` and `report.tex`; pictures are in `figures`, what can be shared of each
        method in `counts`.

    Raises:
        InputError: Results that cannot be compared or read.
    """
    results, skipped = read_all(folders)
    for sentence in skipped:
        say(sentence)
    comparison, out = compare(results), Path(out)
    # A dollar in a name is no mathematics; fixed salts give the same results the same files.
    with mpl.rc_context({"text.parse_math": False, "svg.hashsalt": "cmarr", "svg.fonttype": "path"}):
        sections = _sections(comparison, out / "figures")
    for section in sections:
        for note in section.notes:
            say(f"{section.title}: {note}")
    sections.append(_methods(comparison, skipped))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmarr_lightning.analysis"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"tex": _tex, "md": _markdown}
    written = []
    for name in (f"report.{form}" for form in _FORMATS):
        text = environment.get_template(f"{name}.jinja").render(
            comparison=comparison, sections=sections, synthetic=comparison.first.about["synthetic"]
        )
        with replacing(out / name) as path:
            path.write_text(text, encoding="utf-8")
        written.append(out / name)
    for label, one in comparison.methods.items():
        if can_be_shared(one):
            write_counts(count_results(one), out / "counts" / _UNSAFE.sub("-", label) / COUNTS)
    return written


def _sections(comparison: Comparison, figures: Path) -> list[Section]:
    return [
        _scores(comparison, figures),
        _confusions(comparison, figures),
        _robustness(comparison, figures),
        _reconstruction(comparison),
        _learning(comparison, figures),
        _calibration(comparison, figures),
    ]


def _scores(comparison: Comparison, figures: Path) -> Section:
    section = Section("Scores")
    for make in (tables.score_table, tables.mean_table, tables.test_table):
        section.tables += [table for metric in METRICS if (table := make(comparison, metric)) is not None]
    for label, results in comparison.methods.items():
        if not results.has_clusters:
            section.notes.append(f"{label} kept no predictions: no interval, no paired test.")
    shown = _shown(comparison, section)
    extra = [MISSING_MEAN] if len(shown) > 1 else []
    for metric, name in METRICS.items():
        caption = f"Pooled {name} per condition on {comparison.title}."
        figure = plot_scores(comparison, metric, [*shown, *extra])
        section.pictures.append(_picture(figure, metric, caption, figures))
    return section


def _confusions(comparison: Comparison, figures: Path) -> Section:
    section = Section("Confusion matrices")
    shown = _shown(comparison, section)
    for number, (label, results) in enumerate(comparison.methods.items()):
        chosen = [results.all_conditions.index(name) for name in shown]
        counts = results.confusion[:, chosen].sum(0)
        seeds = len({run.seed for run in results.runs})
        caption = f"{label} on {comparison.title}: share of each true class, and counts over all folds"
        caption += f" and {seeds} seeds." if seeds > 1 else "."
        figure = plot_confusions(counts, shown, results.class_names)
        section.pictures.append(_picture(figure, f"confusion-{number}-{_slug(label)}", caption, figures))
    return section


def _robustness(comparison: Comparison, figures: Path) -> Section:
    section = Section("Robustness")
    tested = any(results.noisy_confusion(results.runs[0]) for results in comparison.methods.values())
    noise = _try_each(comparison, noise_scores, section) if tested else {}
    missing = _try_each(comparison, missing_rate_scores, section)
    whole = next((results for results in comparison.methods.values() if results.has_predictions), None)
    if missing and whole is not None:
        with replacing(figures.parent / MASKS) as path:
            missing_masks(whole).to_csv(path, index=False)
        section.notes.append(f"What is missing at each rate: {MASKS}.")
    if noise or missing:
        section.tables.append(tables.robustness_table(comparison, noise, missing))
        tests = [*(["the level of noise"] if noise else []), *(["a random missing rate"] if missing else [])]
        caption = f"Pooled UAR on {comparison.title} against {' and against '.join(tests)}."
        figure = plot_robustness(noise, missing, comparison.first.conditions[-1])
        section.pictures.append(_picture(figure, "robustness", caption, figures))
    return section


def _reconstruction(comparison: Comparison) -> Section:
    section = Section("Reconstruction")
    measured = _try_each(comparison, protocol_reconstruction, section)
    if measured:
        section.tables.append(tables.reconstruction_table(comparison, measured))
        section.notes.append(
            "One checkpoint per fold, one seed; at most 1000 test utterances and 16 conditions are measured."
        )
    return section


def _learning(comparison: Comparison, figures: Path) -> Section:
    section = Section("Learning curves")
    curves = _try_each(comparison, learning_curves, section)
    names = list(dict.fromkeys(name for each in curves.values() for name in curve_names(comparison.first, each)))
    if names:
        caption = (
            f"Means over the runs of each method on {comparison.title}; shaded: from the lowest to the highest run."
        )
        section.pictures.append(_picture(plot_learning_curves(curves, names), "learning", caption, figures))
    return section


def _calibration(comparison: Comparison, figures: Path) -> Section:
    section = Section("Calibration")
    errors = _try_each(comparison, calibration_errors, section)
    if errors:
        section.tables.append(tables.calibration_table(comparison, errors))
        bins = {label: calibration_bins(comparison.methods[label]) for label in errors}
        caption = (
            f"Reliability diagrams on {comparison.title}: accuracy against confidence, 15 bins; larger markers: more "
            f"predictions; bins of fewer than {FEWEST} are not drawn. Below the diagonal: overconfident."
        )
        figure = plot_calibration(bins, _shown(comparison, section))
        section.pictures.append(_picture(figure, "calibration", caption, figures))
    return section


def _methods(comparison: Comparison, skipped: Sequence[str]) -> Section:
    section = Section("Methods and runs", notes=list(skipped), tables=[tables.method_table(comparison)])
    for label, results in comparison.methods.items():
        versions = ", ".join(f"{name} {version}" for name, version in results.about["packages"].items())
        section.notes.append(f"{label}: {versions}.")
    return section


def _try_each(comparison: Comparison, compute: Callable[[ProtocolResults], T], section: Section) -> dict[str, T]:
    """Compute something for every method; where it cannot be, the section says why."""
    found = {}
    for label, results in comparison.methods.items():
        try:
            found[label] = compute(results)
        except InputError as error:
            section.notes.append(f"{label} is left out. {error}")
    return found


def _shown(comparison: Comparison, section: Section) -> list[str]:
    shown, left_out = shown_conditions(comparison.first.conditions)
    if left_out:
        section.notes.append(
            f"Pictures show {len(shown)} of {len(shown) + len(left_out)} conditions (complete, single modalities, one "
            "missing, then the next ones); the tables of scores hold all."
        )
    return shown


def _picture(figure: Figure, key: str, caption: str, figures: Path) -> Picture:
    """Save a figure as PDF and keep it as SVG, without dates, so that the same results give the same files."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, drawn twice
    with replacing(figures / f"{key}.pdf") as path:
        figure.savefig(path, metadata={"CreationDate": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    address = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(key, caption, address)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_`]|<(?=[A-Za-z/!?]))", r"\\\1", text)
