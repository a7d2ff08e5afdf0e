"""The summary of a protocol: for the terminal, as CSV and as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmarr_lightning.analysis.protocol import ProtocolResults, load_results
from cmarr_lightning.analysis.statistics import summarize
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.files import replacing
from cmarr_lightning.modalities import condition_name

__all__ = [
    "conclude",
    "conclude_validation",
    "conclude_variants",
    "markdown_summary",
    "print_summary",
    "protocol_title",
]

_HEADER = ("condition (present)", "WAR %", "UAR %", "pooled WAR %", "pooled UAR %", "N")


def print_summary(results: ProtocolResults, summary: pd.DataFrame) -> Table:
    """Lay the summary out for the terminal, in per cent."""
    table = Table(title=protocol_title(results), caption=_caption(summary), caption_justify="left", box=SIMPLE_HEAD)
    for position, head in enumerate(_HEADER):
        table.add_column(head, justify="right" if position else "left", overflow="fold")
    for row in _rows(summary):
        if row[0] == MISSING_MEAN:
            table.add_section()
        table.add_row(*(escape(cell) for cell in row))
    return table


def markdown_summary(results: ProtocolResults, summary: pd.DataFrame, command: str) -> str:
    """Write the summary and where it comes from as Markdown."""
    about = results.about
    commits = sorted({str(run.about["commit"] or "not a git checkout") for run in results.runs})
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines = [
        f"# {protocol_title(results)}",
        "",
        f"- command: `{command}`",
        f"- commit: {', '.join(commits)}",
        f"- packages: {versions}",
        f"- data: {about['data']}, checksum {about['data_checksum']}",
        f"- synthetic data: {'yes' if about['synthetic'] else 'no'}",
        f"- folds: {_numbers(run.fold for run in results.runs)} ({about['protocol']})",
        f"- seeds: {_numbers(run.seed for run in results.runs)}",
        f"- runs: {len(results.runs)}",
    ]
    if results.unfinished:
        lines.append(f"- unfinished, left out: {', '.join(path.name for path in results.unfinished)}")
    lines += ["", "| " + " | ".join(_HEADER) + " |", "| --- |" + " ---: |" * (len(_HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(summary)]
    return "\n".join([*lines, "", _caption(summary), ""])


def protocol_title(results: ProtocolResults) -> str:
    """Name results in a heading: method, data, folds and seeds; synthetic data are always called so."""
    about = results.about
    seeds, folds = ({getattr(run, key) for run in results.runs} for key in ("seed", "fold"))
    title = f"{about['method']} on {about['data']}, {_count(folds, 'fold')}, {_count(seeds, 'seed')}"
    return f"{title} (synthetic data)" if about["synthetic"] else title


def conclude(folder: Path, command: str, console: Console) -> None:
    """Summarise a protocol, write `summary.csv` and `summary.md`, print the table.

    Intervals are left out where not every run has kept its predictions.

    Args:
        folder: Of the protocol.
        command: What was typed.
        console: Takes the table.

    Raises:
        InputError: No finished run.
    """
    results, summary = _write_summary(folder, command)
    table = print_summary(results, summary)
    _print_wide(table, console)
    console.print(f"Every score: {folder / 'results.csv'}; summary: {folder / 'summary.md'}", soft_wrap=True)


def conclude_variants(folders: Sequence[Path], command: str, console: Console) -> None:
    """Summarise several protocols as `conclude` does, and print one table: a row per protocol.

    Args:
        folders: Of the protocols.
        command: What was typed.
        console: Takes the table.

    Raises:
        InputError: No finished run in one of them.
    """
    table = Table(title=f"{MISSING_MEAN}, mean over the runs", box=SIMPLE_HEAD)
    for position, head in enumerate(("variant", "runs", "validation UAR %", "test WAR %", "test UAR %")):
        table.add_column(head, justify="right" if position else "left", overflow="fold")
    for folder in folders:
        results, _ = _write_summary(folder, command)
        scores = results.table[results.table["condition"] == MISSING_MEAN].groupby(["stage", "metric"])["value"].mean()
        chosen = (("validate", "uar"), ("test", "war"), ("test", "uar"))
        cells = (f"{100 * scores[key]:.1f}" if key in scores else "-" for key in chosen)
        table.add_row(escape(folder.name), str(len(results.runs)), *cells)
    _print_wide(table, console)
    console.print(
        f"Each folder in {folders[0].parent} is one method of `cmarr report {folders[0].parent}/* --out ...`.",
        soft_wrap=True,
    )


def conclude_validation(folders: Sequence[Path], console: Console) -> None:
    """Print the validation scores of protocols, two rows for each; nothing of the test fold is read.

    Args:
        folders: Of the protocols.
        console: Takes the table.

    Raises:
        InputError: No run with validation scores in one of them.
    """
    table = Table(title="validation folds, mean over the runs", box=SIMPLE_HEAD)
    for position, head in enumerate(("method", "runs", "condition", "WAR %", "UAR %")):
        table.add_column(head, justify="left" if position in (0, 2) else "right", overflow="fold")
    for folder in folders:
        results = load_results(folder, "validate")
        scores = results.table[results.table["stage"] == "validate"].groupby(["condition", "metric"])["value"].mean()
        for condition in (MISSING_MEAN, condition_name(results.about["modalities"])):
            if condition in scores:
                cells = (results.about["method"], str(len(results.runs)), condition)
                values = (f"{100 * scores[condition, metric]:.1f}" for metric in ("war", "uar"))
                table.add_row(*map(escape, cells), *values)
    _print_wide(table, console)
    console.print("The test fold was left alone: the same command without --no-test scores it.", soft_wrap=True)


def _write_summary(folder: Path, command: str) -> tuple[ProtocolResults, pd.DataFrame]:
    results = load_results(folder)
    summary = summarize(results, intervals=results.has_predictions)
    with replacing(folder / "summary.csv") as path:
        summary.to_csv(path, index=False, float_format="%.6f")
    with replacing(folder / "summary.md") as path:
        path.write_text(markdown_summary(results, summary, command), encoding="utf-8")
    return results, summary


def _print_wide(table: Table, console: Console) -> None:
    if not console.is_terminal:  # in a file or a pipe nothing need be folded
        console.width = max(console.width, 120)
    console.print(table)


def _count(things: Collection[int], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))


def _caption(summary: pd.DataFrame) -> str:
    text = "WAR and UAR: mean ± standard deviation over folds and seeds. Pooled: the folds of a seed as one test set, "
    text += "mean over the seeds"
    if summary["low"].isna().all():
        return f"{text}."
    first = summary.iloc[0]
    return f"{text} [95 % bootstrap interval, {first['clusters']} {first['cluster']}s resampled]."


def _rows(summary: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    records = {(row["condition"], row["metric"]): row for row in summary.to_dict("records")}
    for name in summary["condition"].unique():
        war, uar = (records[name, metric] for metric in ("war", "uar"))
        yield name, _spread(war), _spread(uar), _interval(war), _interval(uar), f"{war['n']:,}"


def _spread(row: Mapping[Any, Any]) -> str:
    mean = f"{100 * row['mean']:.1f}"
    return mean if np.isnan(row["std"]) else f"{mean} ± {100 * row['std']:.1f}"


def _interval(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["pooled"]):
        return "-"
    value = f"{100 * row['pooled']:.1f}"
    return value if np.isnan(row["low"]) else f"{value} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
