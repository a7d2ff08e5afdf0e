"""Variants of a configuration: what an ablation or a sweep changes, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cmarr_lightning.errors import InputError

__all__ = ["read_variants", "variant_words"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def read_variants(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a file of variants: the name of each -> the part of a configuration in which it differs (maybe nothing).

    Raises:
        InputError: Not such a file, a name that makes no folder, or an override that the protocol sets itself.
    """
    remedy = "write e.g. `no_alignment: {model: {init_args: {weight_align: 0}}}`, one entry per variant"
    try:
        variants = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({error})", remedy=remedy) from error
    if not isinstance(variants, dict) or not variants:
        raise InputError(f"{path}: no variants", remedy=remedy)
    for name, override in variants.items():
        if not (isinstance(name, str) and _NAME.fullmatch(name)) or name.startswith("fold-"):
            raise InputError(
                f"{path}: {name!r} cannot be the name of a variant, which is a folder's",
                remedy="use letters, digits, _, ., + and -; do not begin with fold-",
            )
        if override is not None and not isinstance(override, dict):
            raise InputError(f"{path}: {name} is {override!r}, not a part of a configuration", remedy=remedy)
        _refuse_what_runs_set(path, name, override or {})
    return {name: override or {} for name, override in variants.items()}


def variant_words(override: Mapping[str, Any]) -> list[str]:
    """Write an override as words after `cmarr fit`."""
    return ["-c", json.dumps(override)] if override else []


def _refuse_what_runs_set(path: str | Path, name: str, override: Mapping[str, Any]) -> None:
    data = override.get("data")
    init_args = data.get("init_args") if isinstance(data, dict) else None
    fold = isinstance(init_args, dict) and "fold" in init_args
    for key, found, option in (
        ("seed_everything", "seed_everything" in override, "--seeds"),
        ("data.init_args.fold", fold, "--folds"),
    ):
        if found:
            raise InputError(f"{path}: {name} sets {key}, which is set for each run", remedy=f"use {option}")
