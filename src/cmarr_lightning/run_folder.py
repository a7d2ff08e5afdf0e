"""The folder of a run: where it is, its configuration and its checkpoints."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cmarr_lightning.errors import InputError

__all__ = ["check_checkpoint", "resolve_run"]

_RUNS = Path("runs")


def resolve_run(argv: list[str]) -> tuple[list[str], Path]:
    """Find the folder of the run and complete the arguments from what it holds.

    * `fit` makes a new folder `runs/<time>-<random>`, or takes `--run FOLDER`, which must not hold a run yet.
      With `--ckpt_path last` it goes on with the run in `--run`, or with the latest one under `runs`.
    * The other stages take the run from `--run`, or from the place of `--ckpt_path`; the checkpoint is its best
      one (`--ckpt_path last` takes the last).
    * Where there is a run, its own `config.yaml` comes first; what is given with `-c` or as an option overrides it.

    Returns:
        The arguments for LightningCLI and the run's folder.

    Raises:
        InputError: A run, configuration or checkpoint is not where it should be, or would be overwritten.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--ckpt_path")
    known, rest = parser.parse_known_args(argv[1:])
    stage, run, checkpoint = argv[0], known.run, known.ckpt_path
    if {"-h", "--help", "--print_config"} & {word.split("=")[0] for word in rest}:
        return [stage, *rest], run or _RUNS
    if stage == "fit":
        if checkpoint == "last":
            run = run or _latest_run()
            checkpoint = str(_checkpoint(run, "last"))
            rest = _with_config(rest, run)
        else:
            run = _new_run(run)
    else:
        if run is None:
            run = _run_of_checkpoint(checkpoint)
        if checkpoint in (None, "best", "last"):
            checkpoint = str(_checkpoint(run, checkpoint or "best"))
        rest = _with_config(rest, run)
    if checkpoint is not None:
        rest = [*rest, "--ckpt_path", checkpoint]
    return [stage, *rest], run


def _new_run(run: Path | None) -> Path:
    if run is None:
        return _RUNS / f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    if (run / "config.yaml").exists():
        raise InputError(
            f"{run} holds a run already",
            remedy="choose another --run, or go on with it by --ckpt_path last",
        )
    return run


def _latest_run() -> Path:
    runs = sorted(_RUNS.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise InputError(f"no run with a last checkpoint under {_RUNS}", remedy="name the run's folder with --run")
    return runs[-1].parents[1]


def _run_of_checkpoint(checkpoint: str | None) -> Path:
    if checkpoint in (None, "best", "last"):
        raise InputError("no run named", remedy="give --run FOLDER, or --ckpt_path FILE")
    folder = Path(str(checkpoint)).parent
    return folder.parent if folder.name == "checkpoints" else folder


def _checkpoint(run: Path, which: str) -> Path:
    folder = run / "checkpoints"
    found = sorted(folder.glob("last.ckpt" if which == "last" else "best-*.ckpt"))
    if not found:
        raise InputError(f"{folder}: no {which} checkpoint", remedy="train the run with `cmarr fit` first")
    return max(found, key=lambda path: path.stat().st_mtime)


def _with_config(rest: list[str], run: Path) -> list[str]:
    config = run / "config.yaml"
    if config.exists():
        return ["-c", str(config), *rest]
    if any(word in ("-c", "--config") or word.startswith("--config=") for word in rest):
        return rest
    raise InputError(f"{config}: not found", remedy="give the configuration with -c")


def check_checkpoint(path: str | Path, *, to_train: bool) -> dict[str, Any]:
    """Refuse a file that is no checkpoint before anything is built upon it. Nothing in it is executed.

    Returns:
        The arguments of the task in it.

    Raises:
        InputError: Missing, truncated, not from this program, holding more than plain values and tensors, or
            without the state of training although training is to go on.
    """
    remedy = "name a checkpoint that `cmarr fit` wrote, or train anew"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint", remedy=remedy)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes may come from anywhere, and so may the error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: cannot be loaded as a checkpoint ({reason[0]})", remedy=remedy) from error
    needed = ["pytorch-lightning_version", "state_dict", "hyper_parameters"]
    needed += ["optimizer_states", "lr_schedulers", "loops"] if to_train else []
    absent = [key for key in needed if not isinstance(checkpoint, dict) or key not in checkpoint]
    if absent:
        raise InputError(f"{path}: not a checkpoint of this program (no {', '.join(absent)})", remedy=remedy)
    arguments: dict[str, Any] = dict(checkpoint["hyper_parameters"])
    return arguments
