"""Learning curves, from the CSV logs of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cmarr_lightning.analysis.protocol import ProtocolResults
from cmarr_lightning.analysis.style import folded, grid, look_of
from cmarr_lightning.errors import InputError
from cmarr_lightning.modalities import condition_name

__all__ = ["curve_names", "learning_curves", "plot_learning_curves"]

_COLUMNS = ["run", "fold", "seed", "epoch", "metric", "value"]
_TITLES = {
    "train/loss": ("training: total loss", "loss"),
    "train/loss_cls": ("training: classification", "nats"),
    "train/loss_align": ("training: alignment", "nats"),
    "train/loss_recon": ("training: reconstruction", "squared error / dim"),
    "train/loss_nll": ("training: neg. log-likelihood", "nats / dim"),
    "train/loss_refine": ("training: refinement", "nats"),
    "val/uar_missing_mean": ("validation: mean of incomplete", "UAR, %"),
    "val/war_missing_mean": ("validation: mean of incomplete", "WAR, %"),
}


def learning_curves(results: ProtocolResults) -> pd.DataFrame:
    """Read what was logged while training.

    Where a training was resumed, the epochs that were done again replace the earlier ones.

    Returns:
        One row per run, epoch and metric: run, fold, seed, epoch, metric, value; runs without a CSV log have none.

    Raises:
        InputError: No run has a CSV log of its training: there are counts alone, no network, no such logger, or the
            task logs nothing of its training.
    """
    parts = []
    for run in results.runs_on_disk:
        for path in sorted(run.path.glob("logs/version_*/metrics.csv"), key=_version):
            log = _training_log(path)
            if log is not None:
                parts.append(log.assign(run=run.name, fold=run.fold, seed=run.seed))
    if not parts:
        if not any(run.has_network for run in results.runs_on_disk):
            raise InputError(f"{results.folder}: {results.about['method']} has no network")
        if any(any(run.path.glob("logs/version_*/metrics.csv")) for run in results.runs_on_disk):
            raise InputError(
                f"{results.folder}: no logs/version_*/metrics.csv has columns train/...",
                remedy='let the task log its loss: self.log("train/loss", loss, on_step=False, on_epoch=True)',
            )
        raise InputError(
            f"{results.folder}: no run has logs/version_*/metrics.csv of a training",
            remedy="add lightning.pytorch.loggers.CSVLogger to trainer.logger",
        )
    table = pd.concat(parts, ignore_index=True)
    return table.drop_duplicates(["run", "epoch", "metric"], keep="last")[_COLUMNS].reset_index(drop=True)


def curve_names(results: ProtocolResults, curves: pd.DataFrame) -> list[str]:
    """Choose what to draw: the loss, its terms, and the validation UAR of incomplete and complete data."""
    complete = f"val/uar/{condition_name(results.about['modalities'])}"
    found = set(curves["metric"])
    terms = [name for name in _TITLES if name.startswith("train/")]
    others = sorted(name for name in found if name.startswith("train/loss_") and name not in terms)
    return [name for name in [*terms, *others, "val/uar_missing_mean", complete] if name in found]


def plot_learning_curves(methods: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> Figure:
    """Draw one panel per metric: the mean over the runs of each method, with the range of the runs behind it.

    Args:
        methods: Label -> `learning_curves`.
        metrics: Names in the log.
    """
    figure, axes = grid(len(metrics), 2.9, 2.3)
    looks = look_of(list(methods))
    for axis, metric in zip(axes, metrics, strict=True):
        title, unit = _title(metric)
        factor = 100 if unit.endswith("%") else 1
        for method, look in looks.items():
            table = methods[method]
            values = factor * table[table["metric"] == metric].groupby("epoch")["value"].agg(["mean", "min", "max"])
            epoch = values.index + 1
            axis.fill_between(epoch, values["min"], values["max"], color=look.color, alpha=0.15, lw=0)
            label = method if axis is axes[0] else None
            axis.plot(epoch, values["mean"], color=look.color, ls=look.linestyle, lw=1.4, label=label)
        axis.set_title(folded(title, width=36), fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.set_ylabel(unit, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(color="0.9", lw=0.5)
    figure.legend(loc="outside upper center", ncols=min(3, len(methods)), fontsize=8, frameon=False)
    return figure


def _title(metric: str) -> tuple[str, str]:
    if metric.startswith("val/uar/"):
        return f"validation: {metric.removeprefix('val/uar/')}", "UAR, %"
    return _TITLES.get(metric, (metric.replace("train/loss_", "training: "), "loss"))


def _version(path: Path) -> int:
    return int(path.parent.name.removeprefix("version_"))


def _training_log(path: Path) -> pd.DataFrame | None:
    """Read epoch, metric, value; None where nothing was trained (the log of a test) or nothing is legible."""
    try:
        log = pd.read_csv(path)
    except (OSError, ValueError):
        return None
    names = [name for name in log.columns if name.startswith(("train/", "val/"))]
    if "epoch" not in log or not any(name.startswith("train/") for name in names):
        return None
    long = log.melt("epoch", names, var_name="metric").dropna()
    return long.astype({"epoch": int})
