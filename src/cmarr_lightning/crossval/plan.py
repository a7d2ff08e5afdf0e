"""What a protocol consists of: its configuration, its data, its folds; kept in `crossval.json` of its folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cmarr_lightning.analysis.counted import COUNTS
from cmarr_lightning.analysis.provenance import git_commit, package_versions
from cmarr_lightning.analysis.runs import read_json, run_name
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.data.folds import make_folds
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.tasks.base import EmotionTask

__all__ = [
    "PROTOCOL",
    "Protocol",
    "build_data",
    "choose_folds",
    "identify",
    "keep_protocol",
    "name_method",
    "parse_numbers",
    "resolve_config",
    "resolve_configs",
    "run_about",
]

PROTOCOL = "crossval.json"

_SET_BY_US = {"--run": "--out", "--ckpt_path": "--out", "--seed_everything": "--seeds"}


@dataclass(frozen=True)
class Protocol:
    """The runs of one configuration.

    Attributes:
        folder: Takes the runs and their tables.
        identity: What all runs share (`identify`).
        config: The resolved configuration.
        runs: Fold and seed of each.
    """

    folder: Path
    identity: Mapping[str, Any]
    config: Mapping[str, Any]
    runs: Sequence[tuple[int, int]]


def resolve_config(words: Sequence[str]) -> dict[str, Any]:
    """Let `cmarr fit` read configuration files and overrides and say everything that it would use.

    Args:
        words: As after `cmarr fit`, e.g. `["-c", "config.yaml", "--trainer.max_epochs", "3"]`.

    Raises:
        InputError: An option that the protocol sets itself, or a configuration that does not parse.
    """
    return resolve_configs({"": words})[""]


def resolve_configs(words: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Resolve several configurations, as `resolve_config` does one; their names come first in messages."""
    for name, each in words.items():
        _refuse_what_runs_set(each, name)
    child = subprocess.run(
        [sys.executable, "-m", "cmarr_lightning.crossval.resolve"],
        input=json.dumps(list(words.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        message = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the configuration cannot be used: {message}")
    configs = {}
    for name, (code, text) in zip(words, json.loads(child.stdout.splitlines()[-1]), strict=True):
        if code:
            raise InputError(f"{_of(name)}the configuration cannot be used: {text}")
        configs[name] = yaml.safe_load(text)
        if configs[name].get("data") is None:
            raise InputError(
                f"{_of(name)}the configuration names no data", remedy="add `data` with class_path and init_args"
            )
    return configs


def _of(name: str) -> str:
    return f"{name}: " if name else ""


def _refuse_what_runs_set(words: Sequence[str], name: str) -> None:
    for word in words:
        option = word.split("=")[0]
        ours = "--folds" if option.startswith("--data") and option.endswith(".fold") else _SET_BY_US.get(option)
        if ours:
            raise InputError(f"{_of(name)}{option} is set for each run by the protocol", remedy=f"use {ours}")


def build_data(config: Mapping[str, Any], fold: int = 0) -> FeatureDataModule:
    """Make the data module of a resolved configuration for one fold.

    Raises:
        InputError: The store or an argument cannot be used.
    """
    made: FeatureDataModule = _class_of(config["data"])(**config["data"]["init_args"] | {"fold": fold})
    return made


def name_method(config: Mapping[str, Any]) -> str:
    """Name the method of a resolved configuration in tables."""
    task: type[EmotionTask] = _class_of(config["model"])
    return task.method_name(config["model"].get("init_args", {}))


def _class_of(config: Mapping[str, Any]) -> Any:
    path = config["class_path"]
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be imported ({error})",
            remedy="write class_path as module.Class, and name the folder of the module in PYTHONPATH",
        ) from error


def choose_folds(data: FeatureDataModule, folds: str) -> list[int]:
    """Read `--folds` and audit all folds of the protocol.

    Args:
        data: The data module of any fold.
        folds: `all`, or numbers joined by commas.

    Raises:
        InputError: No such fold, or folds that leak.
    """
    _ = data.split  # audits all folds
    rows = np.flatnonzero(data.labels >= 0)
    manifest = data.store.manifest
    made = make_folds(manifest, rows, data.labels, data.protocol, column=data.fold_column, num_folds=data.num_folds)
    if folds == "all":
        return list(range(len(made)))
    chosen = parse_numbers(folds, "--folds")
    if beyond := [fold for fold in chosen if fold >= len(made)]:
        raise InputError(f"--folds: no fold {beyond[0]}", remedy=f"use all, or numbers of 0 to {len(made) - 1}")
    return chosen


def parse_numbers(text: str, option: str) -> list[int]:
    """Read numbers joined by commas.

    Raises:
        InputError: Something else, or a number twice.

    Examples:
        >>> parse_numbers("0,2", "--seeds")
        [0, 2]
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise InputError(f"{option} {text!r}: not a list of different numbers", remedy=f"write e.g. {option} 0,1,2")
    return [int(word) for word in words]


def identify(config: Mapping[str, Any], data: FeatureDataModule, method: str) -> dict[str, Any]:
    """Collect what all runs of a protocol share, as `crossval.json` holds it.

    The seed and the fold belong to a run. The place of the store may change, its checksum may not.
    """
    shared = deepcopy(dict(config))
    shared.pop("seed_everything", None)
    for key in ("seed", "fold", "store"):
        shared["data"]["init_args"].pop(key, None)
    return {
        "method": method,
        "data": data.store.name,
        "data_checksum": data.data_checksum,
        "synthetic": data.synthetic,
        "protocol": data.protocol,
        "modalities": data.modalities,
        "class_names": data.class_names,
        "config": shared,
    }


def keep_protocol(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write `crossval.json` into a new folder, or check that the folder belongs to the same protocol.

    Raises:
        InputError: The folder has runs of another configuration or other data; the message names the differences.
    """
    path = folder / PROTOCOL
    if path.exists():
        differences = list(_differences(read_json(path), json.loads(json.dumps(identity))))
        if differences:
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise InputError(
                f"{folder} holds runs of another configuration: {'; '.join(differences[:3])}{more}",
                remedy="choose another --out, or give the configuration that the folder was made with",
            )
        return
    if folder.exists() and any(not entry.name.startswith(".") and entry.name != COUNTS for entry in folder.iterdir()):
        raise InputError(f"{folder} holds something else than a protocol", remedy="choose a new folder for --out")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(identity, indent=2), encoding="utf-8")


def run_about(identity: Mapping[str, Any], config: Mapping[str, Any], fold: int, seed: int) -> dict[str, Any]:
    """Describe one run, as its `about.json` does."""
    own = deepcopy(dict(config)) | {"seed_everything": seed}
    own["data"]["init_args"]["fold"] = fold
    return {
        "run": run_name(fold, seed),
        **{key: value for key, value in identity.items() if key != "config"},
        "fold": fold,
        "seed": seed,
        "commit": git_commit(),
        "packages": package_versions(),
        "config": own,
        "finished": [],
    }


def _differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield f"{key.removeprefix('config.')} was {old}, is {new}"
