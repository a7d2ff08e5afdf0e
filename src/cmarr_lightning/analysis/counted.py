r"""Results without predictions: the confusion counts of every run, by cluster.

Predictions on corpora under research licences must stay where the corpora are, counts need not. And counts per
speaker are all that pooled scores, intervals and paired tests read (`cmarr_lightning.analysis.statistics`), so that a
method can be tested against published results without their runs. `counts.json` holds, for every fold and seed,

* per cluster g (speaker or session, numbered in the order of their names) and condition k the counts
  :math:`n^{gk}_{ij}` of utterances of class i taken for class j,
* the counts under noise, and at each random missing rate (`cmarr_lightning.analysis.robustness`), over all clusters,

and no utterance, no name and no place of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cmarr_lightning.analysis.protocol import RESULT_COLUMNS, Cluster, ProtocolResults
from cmarr_lightning.analysis.runs import Run, read_json, run_name
from cmarr_lightning.analysis.tables import score_table
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = ["COUNTS", "CountedResults", "Counts", "read_counts", "settings_digest", "write_counts"]

COUNTS = "counts.json"
_FORMAT = 1
_COMMON = ("method", "data", "data_checksum", "synthetic", "protocol", "modalities", "class_names", "packages")
_REMEDY = "take the file as `cmarr report` wrote it"


@dataclass(frozen=True)
class Counts:
    """Confusion counts int64 of R runs, rows = true classes.

    Attributes:
        cluster: What is counted by, `speaker` or `session`.
        conditions: K' names, the complete condition or `available` last.
        clusters: (R, G, K', C, C).
        noise: `<condition>@<noise>` -> (R, C, C).
        rates: L missing rates.
        missing: (R, L, C, C).
    """

    cluster: Cluster
    conditions: list[str]
    clusters: np.ndarray
    noise: dict[str, np.ndarray]
    rates: list[float]
    missing: np.ndarray

    def of_runs(self, chosen: Sequence[int]) -> Counts:
        """Keep some of the runs, in the given order."""
        rows = list(chosen)
        noise = {name: counts[rows] for name, counts in self.noise.items()}
        return replace(self, clusters=self.clusters[rows], noise=noise, missing=self.missing[rows])


@dataclass(frozen=True)
class CountedResults(ProtocolResults):
    """Results of which counts are known, and perhaps nothing else.

    Attributes:
        counts: In the order of `runs`.
    """

    counts: Counts

    @cached_property
    def all_conditions(self) -> list[str]:
        """Names of the conditions, `available` included."""
        return self.counts.conditions

    @cached_property
    def conditions(self) -> list[str]:
        """Names of the conditions in which all rows are scored, the complete one last."""
        return [name for name in self.counts.conditions if name != AVAILABLE]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The test scores of every run in tidy form."""
        parts = []
        for run, confusion in zip(self.runs, self.confusion, strict=True):
            scores = score_table(torch.from_numpy(confusion), self.all_conditions, len(self.conditions) - 1)
            scores = scores.melt(["condition", "n"], ["war", "uar", "f1"], var_name="metric")
            common = {key: run.about[key] for key in ("method", "data", "synthetic", "fold", "seed")}
            parts.append(scores.assign(run=run.name, stage="test", **common))
        return pd.concat(parts, ignore_index=True)[RESULT_COLUMNS]

    @cached_property
    def confusion(self) -> np.ndarray:
        """Test confusion counts (R, K', C, C)."""
        total: np.ndarray = self.counts.clusters.sum(1)
        return total

    @property
    def has_predictions(self) -> bool:
        """Always false."""
        return False

    @property
    def has_clusters(self) -> bool:
        """Always true."""
        return True

    @property
    def has_names(self) -> bool:
        """Always false: clusters are numbered."""
        return False

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """There are none.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.folder / COUNTS}: holds counts, no predictions", remedy="use the runs themselves")

    @property
    def cluster(self) -> Cluster:
        """What is counted by."""
        return self.counts.cluster

    def cluster_counts(self, cluster: Cluster) -> tuple[list[str], np.ndarray]:
        """Get the counts (G, S, K', C, C) of the whole seeds.

        Raises:
            InputError: Counted by something else.
        """
        names, counts = self.run_counts(cluster)
        return names, self.pool(counts.swapaxes(0, 1)).swapaxes(0, 1)

    def run_counts(self, cluster: Cluster) -> tuple[list[str], np.ndarray]:
        """Get the counts (G, R, K', C, C) of each run.

        Raises:
            InputError: Counted by something else.
        """
        if cluster != self.counts.cluster:
            raise InputError(
                f"{self.folder / COUNTS}: counted by {self.counts.cluster}, not by {cluster}",
                remedy="use the runs themselves",
            )
        counts = self.counts.clusters.swapaxes(0, 1)
        return [str(number) for number in range(1, len(counts) + 1)], counts

    def noisy_confusion(self, run: Run) -> dict[str, np.ndarray]:
        """Get the counts (C, C) of a run under noise."""
        row = self.runs.index(run)
        return {name: counts[row] for name, counts in self.counts.noise.items()}


def settings_digest(run: Run) -> str:
    """Sum up what a run was trained with, but for seed, fold and place; "" where nobody knows."""
    config = run.about.get("config")
    if not config:
        return str(run.about.get("settings", ""))
    elsewhere = ("seed", "fold", "store", "test_noise", "num_workers", "verify_checksums")
    arguments = (config.get("data") or {}).get("init_args", {})
    data = {key: value for key, value in arguments.items() if key not in elsewhere}
    trainer = config.get("trainer") or {}
    length = {key: trainer.get(key) for key in ("max_epochs", "max_steps", "gradient_clip_val")}
    kept = [config.get("model"), data, length, config.get("ema")]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def write_counts(results: CountedResults, path: Path) -> None:
    """Write what `read_counts` reads, one run per line."""
    counts = results.counts
    head = {
        "format": _FORMAT,
        **{key: results.about[key] for key in _COMMON},
        "cluster": counts.cluster,
        "clusters": counts.clusters.shape[1],
        "conditions": counts.conditions,
        "noise": list(counts.noise),
        "rates": counts.rates,
    }
    lines = []
    for r, run in enumerate(results.runs):
        met = {str(g): part.tolist() for g, part in enumerate(counts.clusters[r], start=1) if part.any()}
        line = {
            **{key: run.about[key] for key in ("fold", "seed", "commit")},
            "settings": settings_digest(run),
            "clusters": met,
            "noise": [part[r].tolist() for part in counts.noise.values()],
            "missing": counts.missing[r].tolist(),
        }
        lines.append(json.dumps(line, separators=(",", ":")))
    with replacing(path) as temporary:
        text = json.dumps(head, indent=1)[:-2] + ',\n "runs": [\n' + ",\n".join(lines) + "\n]}\n"
        temporary.write_text(text, encoding="utf-8")


def read_counts(folder: str | Path) -> CountedResults:
    """Read `counts.json` in a folder.

    Raises:
        InputError: Not readable, or not what `write_counts` writes.
    """
    path = Path(folder) / COUNTS
    content = read_json(path)
    if content.get("format") != _FORMAT:
        raise InputError(f"{path}: format {content.get('format')!r}, not {_FORMAT}", remedy=_REMEDY)
    try:
        common = {key: content[key] for key in _COMMON}
        runs = [
            Run(
                path.parent / run_name(int(line["fold"]), int(line["seed"])),
                {
                    **common,
                    **{key: line[key] for key in ("fold", "seed", "commit")},
                    "settings": line.get("settings", ""),
                },
            )
            for line in content["runs"]
        ]
        counts = _counts(content, len(common["class_names"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error})", remedy=_REMEDY) from error
    if not runs or len({run.name for run in runs}) < len(runs):
        raise InputError(f"{path}: no run, or one of them twice", remedy=_REMEDY)
    return CountedResults(path.parent, tuple(runs), (), counts)


def _counts(content: Mapping[str, Any], size: int) -> Counts:
    conditions, noise = ([str(name) for name in content[key]] for key in ("conditions", "noise"))
    rates = [float(rate) for rate in content["rates"]]
    if content["cluster"] not in ("speaker", "session"):
        raise ValueError(f"cluster {content['cluster']!r}")
    lines, number = content["runs"], int(content["clusters"])
    clusters = np.zeros((len(lines), number, len(conditions), size, size), dtype=np.int64)
    for r, line in enumerate(lines):
        for name, part in line["clusters"].items():
            if not 1 <= int(name) <= number:
                raise ValueError(f"cluster {name} of {number}")
            clusters[r, int(name) - 1] = _array(part, clusters.shape[2:])
    noisy = np.array([_array(line["noise"], (len(noise), size, size)) for line in lines])
    missing = np.array([_array(line["missing"], (len(rates), size, size)) for line in lines])
    by_name = {name: noisy[:, i] for i, name in enumerate(noise)}
    return Counts(content["cluster"], conditions, clusters, by_name, rates, missing)


def _array(content: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(content).reshape(shape) if not np.prod(shape) else np.asarray(content)
    if array.shape != shape or (array.size and array.dtype.kind != "i") or (array < 0).any():
        raise ValueError(f"counts of shape {array.shape} and type {array.dtype}, not natural numbers of shape {shape}")
    return array.astype(np.int64)
