"""The results of a protocol: the runs of one method on all folds and seeds, read as tables and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from cmarr_lightning.analysis.evaluation import CONFUSION, NOISE, PREDICTIONS, SCORES
from cmarr_lightning.analysis.runs import Run, read_csv, read_runs, read_scores
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.modalities import condition_name
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = ["RESULT_COLUMNS", "Cluster", "ProtocolResults", "load_results", "tally", "write_results"]

Cluster: TypeAlias = Literal["speaker", "session", "utterance"]
"""What is drawn as a whole; `utterance` is right only where the utterances are independent."""

RESULT_COLUMNS = [
    *("run", "method", "data", "synthetic", "fold", "seed"),
    *("stage", "condition", "metric", "value", "n"),
]
"""Columns of `results.csv`."""

_METRICS = ("war", "uar", "f1")
_STAGES = ("validate", "test")


@dataclass(frozen=True)
class ProtocolResults:
    """The finished runs of one method on one set of data.

    Attributes:
        folder: Where they are.
        runs: R runs in the order of seed and fold.
        unfinished: Folders of runs without test scores, which are left out.
    """

    folder: Path
    runs: tuple[Run, ...]
    unfinished: tuple[Path, ...]

    @property
    def about(self) -> dict[str, Any]:
        """What all runs have in common: method, data, data_checksum, synthetic, class_names, ..."""
        return self.runs[0].about

    @property
    def runs_on_disk(self) -> tuple[Run, ...]:
        """The runs whose folders are there, with checkpoints and logs; runs known by their counts have none.

        Raises:
            InputError: None is there.
        """
        runs = tuple(run for run in self.runs if run.path.is_dir())
        if not runs:
            raise InputError(f"{self.folder}: holds counts, no runs", remedy="use the runs themselves")
        return runs

    @property
    def class_names(self) -> list[str]:
        """C names in the order of their index."""
        return list(self.about["class_names"])

    @cached_property
    def conditions(self) -> list[str]:
        """K names of the conditions in which all rows are scored, the complete one last."""
        return [name for name in self._first_conditions if name != AVAILABLE]

    @cached_property
    def all_conditions(self) -> list[str]:
        """`conditions`, then `available` where some utterances lack a modality on disk."""
        extra = [AVAILABLE] if AVAILABLE in self._first_conditions else []
        return [*self.conditions, *extra]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The scores of every run in tidy form: the columns `RESULT_COLUMNS`; value in [0, 1]; noisy conditions too.

        Where one fold has incomplete utterances, the condition `available` stands there for every fold.
        """
        return _result_table(self.runs)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Test confusion counts (R, K', C, C) int64 under `all_conditions`, rows = true classes.

        A run in whose fold every utterance is complete has no `available` of its own: there it equals the
        complete condition.
        """
        return np.stack([self._confusion(run) for run in self.runs])

    @property
    def has_predictions(self) -> bool:
        """Whether every run has kept its predictions."""
        return all((run.path / "test" / PREDICTIONS).is_file() for run in self.runs)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Test predictions of every run: fold, seed and the columns of `prediction_table`.

        Raises:
            InputError: A run has none.
        """
        tables = []
        for run in self.runs:
            path = run.path / "test" / PREDICTIONS
            if not path.is_file():
                raise InputError(
                    f"{path}: not found", remedy="run the protocol with --keep-predictions in a new folder"
                )
            table = pd.read_parquet(path)
            table.insert(0, "fold", run.fold)
            table.insert(1, "seed", run.seed)
            tables.append(_with_available(table, self.conditions[-1]) if AVAILABLE in self.all_conditions else table)
        return pd.concat(tables, ignore_index=True)

    @property
    def has_clusters(self) -> bool:
        """Whether confusions can be counted by cluster, which intervals and paired tests need."""
        return self.has_predictions

    @property
    def has_names(self) -> bool:
        """Whether clusters have names; otherwise they are numbered in the order of their names."""
        return True

    @property
    def cluster(self) -> Cluster:
        """The speaker where every utterance has one, otherwise the session, otherwise the utterance itself."""
        candidates: tuple[Cluster, ...] = ("speaker", "session")
        filled = (cluster for cluster in candidates if (self.predictions[cluster] != "").all())
        return next(filled, "utterance")

    @cached_property
    def whole_seeds(self) -> list[int]:
        """The S seeds that have every fold found in the results."""
        folds_of: dict[int, set[int]] = {}
        for run in self.runs:
            folds_of.setdefault(run.seed, set()).add(run.fold)
        every = set().union(*folds_of.values())
        return sorted(seed for seed, folds in folds_of.items() if folds == every)

    def pool(self, counts: np.ndarray) -> np.ndarray:
        """Sum what is counted in the runs, (R, ...), over the folds of the whole seeds: (S, ...)."""
        seeds = np.array([run.seed for run in self.runs])
        pooled = [counts[seeds == seed].sum(0) for seed in self.whole_seeds]
        return np.array(pooled, dtype=counts.dtype).reshape(-1, *counts.shape[1:])

    def cluster_counts(self, cluster: Cluster) -> tuple[list[str], np.ndarray]:
        """Count confusions by cluster, over the folds of the whole seeds.

        Returns:
            The G names of the clusters in order and counts (G, S, K', C, C) int64 under `all_conditions`, rows = true
            classes.

        Raises:
            InputError: No predictions, or an utterance without speaker or session.
        """
        table = self.predictions
        table = table[table["seed"].isin(self.whole_seeds)]
        return self._count(table, cluster, table["seed"], pd.Index(self.whole_seeds))

    def run_counts(self, cluster: Cluster) -> tuple[list[str], np.ndarray]:
        """Do the same for each run: counts (G, R, K', C, C)."""
        table = self.predictions
        runs = pd.MultiIndex.from_tuples([(run.fold, run.seed) for run in self.runs])
        return self._count(table, cluster, pd.MultiIndex.from_frame(table[["fold", "seed"]]), runs)

    @cached_property
    def _first_conditions(self) -> list[str]:
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys(read_csv(run.path / "test" / CONFUSION)["condition"])
        return list(names)

    def noisy_confusion(self, run: Run) -> dict[str, np.ndarray]:
        """Read the test confusion counts (C, C) of a run under noise, by `<condition>@<noise>`; none without noise."""
        path = run.path / "test" / NOISE / CONFUSION
        return self._counts(path) if path.is_file() else {}

    def _counts(self, path: Path) -> dict[str, np.ndarray]:
        size = len(self.class_names)
        return {
            str(name): part["count"].to_numpy(dtype=np.int64).reshape(size, size)
            for name, part in read_csv(path).groupby("condition", sort=False)
        }

    def _count(
        self, table: pd.DataFrame, cluster: Cluster, group: pd.Series[int] | pd.MultiIndex, groups: pd.Index[Any]
    ) -> tuple[list[str], np.ndarray]:
        labels = table["utterance_id" if cluster == "utterance" else cluster]
        if (labels == "").any():
            utterance = table["utterance_id"][labels == ""].iloc[0]
            raise InputError(
                f"{self.folder}: utterance {utterance!r} has no {cluster}",
                remedy="fill the column of the manifest, or use another cluster",
            )
        names = sorted(set(labels))
        columns = [labels, group, table["condition"], table["true"], table["predicted"]]
        classes = pd.Index(self.class_names)
        axes = [pd.Index(names), groups, pd.Index(self.all_conditions), classes, classes]
        return names, tally(columns, axes)

    def _confusion(self, run: Run) -> np.ndarray:
        per_condition = self._counts(run.path / "test" / CONFUSION)
        per_condition.setdefault(AVAILABLE, per_condition[self.conditions[-1]])
        return np.stack([per_condition[name] for name in self.all_conditions])


def tally(columns: Sequence[Any], axes: Sequence[pd.Index[Any]]) -> np.ndarray:
    """Count rows by the values of several columns: int64, one axis per column; every value is in its axis."""
    codes = tuple(axis.get_indexer(column) for axis, column in zip(axes, columns, strict=True))
    shape = tuple(len(axis) for axis in axes)
    return np.bincount(np.ravel_multi_index(codes, shape), minlength=int(np.prod(shape))).reshape(shape)


def load_results(folder: str | Path, stage: str = "test") -> ProtocolResults:
    """Read the results of `cmarr crossval` or `cmarr baseline`.

    Args:
        folder: Of the protocol.
        stage: Which scores a run must have, `test` or `validate`; without a test only `table` can be read.

    Raises:
        InputError: No finished run there, or runs of different methods, data or classes.
    """
    folder = Path(folder)
    runs, unfinished = read_runs(folder, stage)
    if not runs:
        half = f" ({len(unfinished)} without {stage} scores)" if unfinished else ""
        raise InputError(f"{folder}: no finished run{half}", remedy="name a folder written by `cmarr crossval`")
    for key in ("method", "data_checksum", "class_names"):
        for run in runs:
            if run.about[key] != runs[0].about[key]:
                raise InputError(
                    f"{folder}: {key} differs between {runs[0].name} ({runs[0].about[key]}) and {run.name} "
                    f"({run.about[key]})",
                    remedy="keep the runs of different methods or data in different folders",
                )
    return ProtocolResults(folder, tuple(runs), tuple(unfinished))


def write_results(folder: Path, stage: str = "test") -> None:
    """Write `results.csv`, the tidy table of all runs in the folder that have the scores of a stage, anew."""
    runs, _ = read_runs(folder, stage)
    with replacing(folder / "results.csv") as path:
        _result_table(runs).to_csv(path, index=False, float_format="%.6f")


def _result_table(runs: Sequence[Run]) -> pd.DataFrame:
    parts = []
    for run in runs:
        for stage in _STAGES:
            tables = [read_scores(run.path, part) for part in _scored_parts(run.path, stage)]
            if tables:
                scores = pd.concat(tables).melt(["condition", "n"], list(_METRICS), var_name="metric")
                common = {key: run.about[key] for key in ("method", "data", "synthetic", "fold", "seed")}
                parts.append(scores.assign(run=run.name, stage=stage, **common))
    if not parts:
        return pd.DataFrame(columns=RESULT_COLUMNS)
    if any((part["condition"] == AVAILABLE).any() for part in parts):
        parts = [_with_available(part, condition_name(runs[0].about["modalities"])) for part in parts]
    return pd.concat(parts, ignore_index=True)[RESULT_COLUMNS]


def _scored_parts(run: Path, stage: str) -> list[str]:
    """List the folders of a stage that hold scores: its own, and that of the noisy conditions."""
    return [part for part in (stage, f"{stage}/{NOISE}") if (run / part / SCORES).is_file()]


def _with_available(table: pd.DataFrame, complete: str) -> pd.DataFrame:
    """Add `available` to a table of a fold in which every utterance is complete: there the two are the same."""
    if (table["condition"] == AVAILABLE).any():
        return table
    return pd.concat([table, table[table["condition"] == complete].assign(condition=AVAILABLE)])
