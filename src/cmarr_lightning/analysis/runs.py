"""Folders of single runs, one per fold and seed: which are finished, and what stands in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cmarr_lightning.analysis.evaluation import ABOUT, CONFUSION, SCORES
from cmarr_lightning.errors import InputError

__all__ = ["Run", "is_finished", "read_csv", "read_json", "read_runs", "read_scores", "run_name"]


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

    @property
    def has_network(self) -> bool:
        """Whether a network was trained; a support vector machine is none."""
        return bool((self.about.get("config") or {}).get("model"))


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


def read_scores(run: Path, stage: str) -> pd.DataFrame:
    """Read the scores in a part of a run's folder, e.g. `test`: condition, war, uar, f1, n.

    Raises:
        InputError: Not there, or not readable.
    """
    return read_csv(run / stage / SCORES)


def read_csv(path: Path) -> pd.DataFrame:
    """Read one of our tables.

    Raises:
        InputError: Not readable.
    """
    try:
        return pd.read_csv(path, keep_default_na=True, na_values=[""], dtype={"condition": str})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error})", remedy="remove its run folder and run it again"
        ) from error


def _is_whole(run: Path, stage: str) -> bool:
    """Tell whether a run is finished and its counts are complete."""
    if not is_finished(run, stage):
        return False
    about = read_json(run / ABOUT)
    scores, counts = read_scores(run, stage), read_csv(run / stage / CONFUSION)
    if missing := {"method", "data_checksum", "class_names", "fold", "seed"} - about.keys():
        raise InputError(f"{run / ABOUT}: no {min(missing)}", remedy="remove its folder and run it again")
    scored = read_json(run / stage / ABOUT) if (run / stage / ABOUT).exists() else {}
    for key in ("data_checksum", "protocol", "fold"):
        if key in scored and scored[key] != about.get(key):
            raise InputError(
                f"{run / stage}: scores of {key} = {scored[key]}, but the run is of {about.get(key)}",
                remedy="score the run on its own data again: cmarr test --run",
            )
    return bool(len(scores)) and set(counts.groupby("condition").size()) == {len(about["class_names"]) ** 2}
