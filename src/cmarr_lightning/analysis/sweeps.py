"""Protocols that differ in their settings: validation scores against the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.runs import read_runs
from cmarr_lightning.analysis.style import grid, look_of
from cmarr_lightning.analysis.tables import MISSING_MEAN
from cmarr_lightning.errors import InputError

__all__ = ["load_sweep", "plot_sweep", "varied_settings"]

_SETTINGS = ("model.init_args", "data.init_args", "trainer")
_NO_MATTER = {"fold", "seed", "store", "eval_batch_size", "num_workers", "verify_checksums"}


def load_sweep(folder: str | Path) -> pd.DataFrame:
    """Read the validation scores of all protocols in a folder. Test scores are not for choosing settings.

    Args:
        folder: Each folder somewhere in it that holds finished runs is one setting.

    Returns:
        One row per setting: protocol, the settings that differ (`weight_align`, ...), uar and war (mean over the
        runs of the mean over the incomplete conditions, in [0, 1]), uar_std, war_std, runs.

    Raises:
        InputError: No finished run there, or protocols of different data.
    """
    folder = Path(folder)
    places = sorted({path.parent for path in folder.rglob("fold-*_seed-*") if path.is_dir()})
    protocols = [
        ProtocolResults(place, tuple(runs), ()) for place in places if (runs := read_runs(place, "validate")[0])
    ]
    if not protocols:
        raise InputError(f"{folder}: no finished run", remedy="name a folder that holds folders of `cmarr crossval`")
    for one in protocols:
        if one.about["data_checksum"] != protocols[0].about["data_checksum"]:
            raise InputError(
                f"{one.folder} and {protocols[0].folder}: different data",
                remedy="keep the sweeps of different data apart",
            )
    settings = [_flat(one.about["config"]) for one in protocols]
    varied = [
        key for key in dict.fromkeys(key for s in settings for key in s) if len({str(s.get(key)) for s in settings}) > 1
    ]
    rows = []
    for one, setting in zip(protocols, settings, strict=True):
        chosen = {key.rpartition(".")[2]: setting.get(key) for key in varied}
        rows.append({"protocol": one.folder.relative_to(folder).as_posix(), **chosen, **_validation(one)})
    return pd.DataFrame(rows)


def varied_settings(sweep: pd.DataFrame) -> list[str]:
    """List the columns of `load_sweep` that hold settings."""
    return [name for name in sweep.columns if name not in {"protocol", "uar", "war", "uar_std", "war_std", "runs"}]


def plot_sweep(sweep: pd.DataFrame, settings: Sequence[str] | None = None) -> Figure:
    """Draw one panel per setting: WAR and UAR against its values, evenly spaced.

    Points are protocols; a line joins, for each value, the mean of the protocols that have it. Where every protocol
    differs from one of them in a single setting, as in Fig. 4 of the paper, a panel shows only those that differ in
    its own setting. Protocols with fewer runs than the others are not drawn: means over different folds cannot be
    compared.

    Args:
        sweep: From `load_sweep`.
        settings: Which; all that vary by default.

    Raises:
        InputError: Nothing varies.
    """
    settings = varied_settings(sweep) if settings is None else settings
    if not settings:
        raise InputError("all protocols have the same settings", remedy="name a folder with a sweep")
    sweep = sweep[sweep["runs"] == sweep["runs"].max()]
    figure, axes = grid(len(settings), 3.6, 3, columns=3)
    for axis, setting in zip(axes, settings, strict=True):
        along = sweep[_differs_alone(sweep, setting)]
        values = sorted(along[setting].unique(), key=lambda value: (isinstance(value, str), value))
        place = along[setting].map({value: i for i, value in enumerate(values)})
        for metric, look in look_of(["uar", "war"]).items():
            label = metric.upper() if axis is axes[0] else None
            scores = 100 * along[metric]
            axis.scatter(place, scores, s=14, color=look.color, marker=look.marker, alpha=0.5)
            mean = scores.groupby(place).mean()
            axis.plot(mean.index, mean, color=look.color, ls=look.linestyle, marker=look.marker, ms=5, label=label)
        axis.set_xticks(
            range(len(values)), [f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values], fontsize=8
        )
        axis.set_xlabel(setting, fontsize=9)
        axis.set_ylabel("validation, mean of incomplete, %", fontsize=8)
        axis.grid(axis="y", color="0.88", lw=0.6)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def _differs_alone(sweep: pd.DataFrame, setting: str) -> pd.Series:
    """Tell which protocols belong into the panel of a setting: in a grid all, one at a time those without others."""
    settings = sweep[varied_settings(sweep)].astype(str)
    differs = settings != settings.mode().iloc[0]
    if (differs.sum(axis=1) > 1).any():
        return pd.Series(data=True, index=sweep.index)
    return ~differs.drop(columns=setting).any(axis=1)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """List the settings that a sweep may vary, `model.init_args.weight_align` and so on."""
    flat: dict[str, Any] = {}
    for place in _SETTINGS:
        part: Any = config
        for key in place.split("."):
            part = (part or {}).get(key)
        flat |= {f"{place}.{key}": value for key, value in (part or {}).items() if key not in _NO_MATTER}
    return flat


def _validation(results: ProtocolResults) -> dict[str, float]:
    table = results.table
    chosen = table[(table["stage"] == "validate") & (table["condition"] == MISSING_MEAN)]
    scores = chosen.groupby("metric")["value"].agg(["mean", "std"])
    found: dict[str, float] = {"runs": len(results.runs)}
    for metric in ("uar", "war"):
        found[metric] = float(scores["mean"].get(metric, np.nan))
        found[f"{metric}_std"] = float(scores["std"].get(metric, np.nan))
    return found
