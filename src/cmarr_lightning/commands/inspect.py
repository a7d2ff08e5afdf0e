"""`cmarr inspect`: show what a feature store holds and verify its checksums."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmarr_lightning.data.inspection import ModalityReport, StoreReport
    from cmarr_lightning.data.store import FeatureStore

__all__ = ["HELP", "add_arguments", "print_contents", "print_report", "run"]

HELP = "show what a feature store holds and verify its checksums"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr inspect`."""
    parser.add_argument("store", metavar="STORE", help="folder of the store")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a quality report as a page: classes per split, lengths, columns, a linear probe per modality",
    )


def run(args: argparse.Namespace) -> int:
    """Read the store completely and print its tables, or write them as a page."""
    from cmarr_lightning.data.inspection import inspect_store
    from cmarr_lightning.data.store import FeatureStore

    store = FeatureStore.open(args.store)
    if args.html is None:
        print_report(inspect_store(store))
    else:
        _write_page(store, args.html)
    return 0


def _write_page(store: FeatureStore, path: str) -> None:
    from cmarr_lightning.analysis.quality_page import quality_page
    from cmarr_lightning.data.quality import assess_quality
    from cmarr_lightning.errors import InputError
    from cmarr_lightning.files import replacing

    report = assess_quality(store)
    try:
        with replacing(path) as temporary:
            temporary.write_text(quality_page(report), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})", remedy="choose another place") from error
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"{path}: quality report of {store.path}{_mark(store.synthetic)}")


def print_contents(store: FeatureStore) -> None:
    """Print in a few lines what a new store holds."""
    print(f"{store.path}: {len(store)} utterances{_mark(store.synthetic)}")
    for modality in store.modalities:
        line = f"  {modality}: {store.kinds[modality]}, {store.dims[modality]}-d"
        line += f", {store.counts['observed'][modality]} utterances"
        if all_nan := store.counts["all_nan"][modality]:
            line += f", {all_nan} more had NaN values only and count as missing"
        if nan_cells := store.counts["nan_cells"][modality]:
            line += f", {nan_cells} NaN values"
        print(line)
    for note in store.notes:
        print(f"  note: {note}")


def print_report(report: StoreReport) -> None:
    """Print a report as tables: modalities, values that need attention, conditions, classes per session."""
    mark = _mark(report.synthetic)
    print(f"{report.path}: {report.name}, {report.utterances} utterances{mark}")
    print(f"made from {report.source}\nchecksums verified, identity {report.checksum[:16]}")
    for note in report.notes:
        print(f"note: {note}")
    _print_modalities(report.modalities, mark)
    _print_lengths(report.modalities, mark)
    _print_table(
        f"Columns that need attention{mark}",
        ["modality", "NaN values", "with NaN", "with Inf", "constant"],
        [
            [m.name, m.nan_cells]
            + [_few(columns) for columns in (m.nan_columns, m.infinite_columns, m.constant_columns)]
            for m in report.modalities
        ],
    )
    _print_table(f"Present on the disk{mark}", ["modalities", "utterances"], list(report.conditions.items()))
    _print_classes(report, mark)


def _print_modalities(modalities: Sequence[ModalityReport], mark: str) -> None:
    header = ["modality", "kind", "dim", "dtype", "observed", "missing", "all NaN", "frames"]
    rows: list[list[object]] = [
        [m.name, m.kind, m.dim, m.dtype, m.observed, m.missing, m.all_nan, m.frames] for m in modalities
    ]
    if any(m.unit for m in modalities):
        header.append("unit")
        rows = [[*row, m.unit] for row, m in zip(rows, modalities, strict=True)]
    _print_table(f"Modalities{mark}", header, rows)


def _print_lengths(modalities: Sequence[ModalityReport], mark: str) -> None:
    from cmarr_lightning.data.inspection import QUANTILES

    _print_table(
        f"Frames per utterance{mark}",
        ["modality", *({0.0: "min", 0.5: "median", 1.0: "max"}.get(q, f"{q:.0%}") for q in QUANTILES)],
        [[m.name, *(f"{length:g}" for length in m.lengths)] for m in modalities if m.kind == "sequence"],
    )


def _print_classes(report: StoreReport, mark: str) -> None:
    classes = report.classes
    rows = [[session or "(none)", *counts, sum(counts)] for session, counts in _counts(report)]
    rows.append(["total", *(int(classes[label].sum()) for label in classes), report.utterances])
    labels = [str(label) or "(none)" for label in classes]
    _print_table(f"Utterances per session and label{mark}", ["session", *labels, "total"], rows)


def _counts(report: StoreReport) -> list[tuple[str, list[int]]]:
    return [(str(session), row.astype(int).tolist()) for session, row in report.classes.iterrows()]


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one table; numbers to the right, nothing where there are no rows."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for position, name in enumerate(header):
        number = any(isinstance(row[position], int) for row in rows)
        table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # in a file or a pipe nothing need be folded
        boundless = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(table, options=boundless).maximum)
    console.print(table)


def _few(columns: Sequence[int]) -> str:
    few = ", ".join(map(str, columns[:6])) + (", ..." if len(columns) > 6 else "")
    return f"{len(columns)} ({few})" if columns else "-"


def _mark(synthetic: bool) -> str:
    return " (synthetic)" if synthetic else ""
