"""The runs of a protocol: one folder per fold and seed, read as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmarr_lightning.analysis.evaluation import ABOUT, CONFUSION, NOISE, PREDICTIONS, SCORES
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.modalities import condition_name
from cmarr_lightning.tasks.scoring import AVAILABLE

__all__ = [
    "RESULT_COLUMNS",
    "ProtocolResults",
    "Run",
    "is_finished",
    "load_results",
    "read_json",
    "read_runs",
    "read_scores",
    "run_name",
    "write_results",
]

RESULT_COLUMNS = [
    *("run", "method", "data", "synthetic", "fold", "seed"),
    *("stage", "condition", "metric", "value", "n"),
]
"""Columns of `results.csv`."""

_METRICS = ("war", "uar", "f1")
_STAGES = ("validate", "test")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: Its folder.
        about: Its `about.json`: run, method, data, data_checksum, synthetic, fold, seed, class_names, config,
            commit, packages, ...
    """

    path: Path
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def fold(self) -> int:
        """Number of the fold."""
        return int(self.about["fold"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.about["seed"])


def run_name(fold: int, seed: int) -> str:
    """Name the folder of a run.

    Examples:
        >>> run_name(3, 0)
        'fold-3_seed-0'
    """
    return f"fold-{fold}_seed-{seed}"


def read_runs(folder: Path, stage: str = "test") -> tuple[list[Run], list[Path]]:
    """Find the runs of a protocol in the order of seed and fold.

    A run is finished when its `about.json` says that it was scored on a stage (`validate` or `test`) and the tables of
    that stage are there and whole.

    Returns:
        The finished runs, and the folders of the others: empty, unfinished or damaged.
    """
    finished, unfinished = [], []
    for path in sorted(folder.glob("fold-*_seed-*")):
        try:
            if _is_whole(path, stage):
                finished.append(Run(path, read_json(path / ABOUT)))
                continue
        except InputError:  # half written; whoever reads the results is told its name
            pass
        unfinished.append(path)
    return sorted(finished, key=lambda run: (run.seed, run.fold)), unfinished


def is_finished(run: Path, stage: str = "test") -> bool:
    """Tell whether a run folder has the scores of a stage, `validate` or `test`."""
    return (run / ABOUT).is_file() and stage in read_json(run / ABOUT).get("finished", ())


def read_json(path: Path) -> dict[str, Any]:
    """Read one of our JSON files.

    Raises:
        InputError: Not readable, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})", remedy="remove its folder and run it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object", remedy="remove its folder and run it again")
    return content


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

    @cached_property
    def _first_conditions(self) -> list[str]:
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys(_read_csv(run.path / "test" / CONFUSION)["condition"])
        return list(names)

    def noisy_confusion(self, run: Run) -> dict[str, np.ndarray]:
        """Read the test confusion counts (C, C) of a run under noise, by `<condition>@<noise>`; none without noise."""
        path = run.path / "test" / NOISE / CONFUSION
        return self._counts(path) if path.is_file() else {}

    def _counts(self, path: Path) -> dict[str, np.ndarray]:
        size = len(self.class_names)
        return {
            str(name): part["count"].to_numpy(dtype=np.int64).reshape(size, size)
            for name, part in _read_csv(path).groupby("condition", sort=False)
        }

    def _confusion(self, run: Run) -> np.ndarray:
        per_condition = self._counts(run.path / "test" / CONFUSION)
        per_condition.setdefault(AVAILABLE, per_condition[self.conditions[-1]])
        return np.stack([per_condition[name] for name in self.all_conditions])


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


def read_scores(run: Path, stage: str) -> pd.DataFrame:
    """Read the scores in a part of a run's folder, e.g. `test`: condition, war, uar, f1, n.

    Raises:
        InputError: Not there, or not readable.
    """
    return _read_csv(run / stage / SCORES)


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


def _is_whole(run: Path, stage: str) -> bool:
    """Tell whether a run is finished and its counts are complete."""
    if not is_finished(run, stage):
        return False
    about = read_json(run / ABOUT)
    scores, counts = read_scores(run, stage), _read_csv(run / stage / CONFUSION)
    if missing := {"method", "data_checksum", "class_names", "fold", "seed"} - about.keys():
        raise InputError(f"{run / ABOUT}: no {min(missing)}", remedy="remove its folder and run it again")
    return bool(len(scores)) and set(counts.groupby("condition").size()) == {len(about["class_names"]) ** 2}


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=True, na_values=[""], dtype={"condition": str})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error})", remedy="remove its run folder and run it again"
        ) from error
