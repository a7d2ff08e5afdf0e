"""The quality report of a feature store as one HTML page without scripts or references to elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from cmarr_lightning.data.quality import Probe, QualityReport

__all__ = ["quality_page"]

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .8em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}h2{margin-top:1.6em}
.warn{background:#fff3e0;border-left:4px solid #e65100;padding:.4em 1em}.good{border-color:#2e7d32;background:#e8f5e9}
.charts{display:flex;flex-wrap:wrap;gap:1.5em}figure{margin:0}figcaption{font-size:90%}rect{fill:#3b6ea5}
.chance{stroke:#e65100;stroke-dasharray:4 3}.low rect{fill:#e65100}"""


def quality_page(report: QualityReport) -> str:
    """Write a report as HTML: warnings first, then probes, classes, lengths and columns.

    Args:
        report: The report.

    Returns:
        A whole page. Made-up data say so in the title and in every heading.
    """
    contents = report.contents
    mark = " (synthetic)" if contents.synthetic else ""
    title = escape(contents.name) + mark
    body = [
        f"<h1>{title}</h1>",
        f"<p>{contents.utterances} utterances, made from <code>{escape(contents.source)}</code>; checksums verified, "
        f"identity <code>{contents.checksum[:16]}</code></p>",
        _warnings(report.warnings),
        *(f"<p>Note: {escape(note)}</p>" for note in contents.notes),
        f"<h2>Linear probe per modality{mark}</h2>",
        f"<p>Unweighted average recall of a linear classifier on time means, {escape(report.probe_groups)}. The "
        "dashed line is chance; a modality near it is uninformative or out of order.</p>",
        *(_probe(probe) for probe in report.probes),
        f"<h2>Modalities{mark}</h2>",
        _modalities(report),
        f"<h2>Present on the disk{mark}</h2>",
        _table(["modalities", "utterances"], list(contents.conditions.items())),
        f"<h2>Frames per utterance{mark}</h2><div class=charts>",
        *(_histogram(m, counts, edges) for m, (counts, edges) in report.lengths.items()),
        "</div>" if report.lengths else "</div><p>No sequences: every modality is one vector per utterance.</p>",
        f"<h2>Classes per split{mark}</h2>",
        *(f"<h3>{escape(column)}</h3>{_crosstab(table)}" for column, table in report.splits.items()),
    ]
    head = f"<meta charset=utf-8><title>{title}: quality report</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return "<p class='warn good'>Nothing conspicuous.</p>"
    return "<ul class=warn>" + "".join(f"<li>{escape(warning)}</li>" for warning in warnings) + "</ul>"


def _probe(probe: Probe) -> str:
    """Draw a bar from 0 to 1 with chance marked."""
    low = " class=low" if probe.at_chance else ""
    label = f"{probe.modality}: UAR {probe.uar:.3f} (chance {probe.chance:.3f}, {probe.utterances} utterances)"
    x = 400 * probe.chance
    return (
        f"<figure><svg{low} width=400 height=16 role=img><rect width={400 * probe.uar:.1f} height=16 />"
        f"<line class=chance x1={x:.1f} x2={x:.1f} y1=0 y2=16 /></svg><figcaption>{escape(label)}</figcaption></figure>"
    )


def _modalities(report: QualityReport) -> str:
    header = ["modality", "kind", "dim", "dtype", "observed", "missing", "frames", "NaN values", "constant columns"]
    rows = [
        (m.name, m.kind, m.dim, m.dtype, m.observed, m.missing, m.frames, m.nan_cells, _few(m.constant_columns))
        for m in report.contents.modalities
    ]
    return _table(header, rows)


def _few(columns: Sequence[int]) -> str:
    return ", ".join(map(str, columns[:12])) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "") or "none"


def _crosstab(table: pd.DataFrame) -> str:
    header = ["", *(str(label) or "(none)" for label in table.columns), "total"]
    counts = table.to_numpy().tolist()
    rows = [(str(name) or "(none)", *row, sum(row)) for name, row in zip(table.index, counts, strict=True)]
    total = table.to_numpy().sum(axis=0).tolist()
    return _table(header, [*rows, ("total", *total, sum(total))])


def _histogram(modality: str, counts: np.ndarray, edges: np.ndarray) -> str:
    highest = max(int(counts.max(initial=1)), 1)
    bars = "".join(
        f"<rect x={i * 300 / len(counts):.1f} width={300 / len(counts) - 1:.1f} y={80 - 80 * n / highest:.1f} "
        f"height={80 * n / highest:.1f}><title>{low:.0f} to {high:.0f} frames: {n}</title></rect>"
        for i, (n, low, high) in enumerate(zip(counts.tolist(), edges[:-1], edges[1:], strict=True))
    )
    label = f"{modality}: {edges[0]:.0f} to {edges[-1]:.0f} frames, highest bar {highest} utterances"
    return f"<figure><svg width=300 height=80 role=img>{bars}</svg><figcaption>{escape(label)}</figcaption></figure>"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
