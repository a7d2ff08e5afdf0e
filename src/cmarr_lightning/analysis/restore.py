"""The trained model of a run and the data it was tested on, made again from the run's folder."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, TypeVar

from cmarr_lightning.analysis.runs import Run
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.errors import InputError
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["restore_run"]

T = TypeVar("T")


def restore_run(run: Run, store: str | None = None) -> tuple[EmotionTask, FeatureDataModule]:
    """Load the best checkpoint of a run and open the data of its fold.

    Args:
        run: A run of `cmarr crossval`.
        store: Where the feature store is now; by default where it was for the run, seen from the working folder.

    Returns:
        The task in evaluation mode, on the CPU, and the data module.

    Raises:
        InputError: No model, no checkpoint or one that does not fit, no store or another one than the run's.
    """
    if not run.has_network:
        raise InputError(f"{run.path}: {run.about['method']} has no network")
    config = run.about["config"]
    checkpoints = sorted((run.path / "checkpoints").glob("best-*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise InputError(f"{run.path / 'checkpoints'}: no best checkpoint", remedy="keep the checkpoints of the runs")
    data = _open_data(run, config["data"], store)
    task_class = _class(config["model"]["class_path"], EmotionTask)
    try:
        task = task_class.load_from_checkpoint(checkpoints[-1], map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes may come from anywhere, and so may the error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{checkpoints[-1]}: cannot be loaded ({reason})", remedy="train the run anew") from error
    for key in ("modalities", "class_names"):
        if getattr(task, key) != list(run.about[key]):
            raise InputError(f"{checkpoints[-1]}: made for other {key} than {run.path / 'about.json'} says")
    return task.eval(), data


def _open_data(run: Run, config: dict[str, Any], store: str | None) -> FeatureDataModule:
    data_class = _class(config["class_path"], FeatureDataModule)
    arguments = dict(config["init_args"]) | {"fold": run.fold}
    if store is not None:
        arguments["store"] = store
    try:
        inspect.signature(data_class).bind(**arguments)
    except TypeError as error:
        raise InputError(f"{run.path / 'about.json'}: {data_class.__name__}: {error}", remedy="run it anew") from error
    try:
        data = data_class(**arguments)
    except InputError as error:
        hint = f"{error} (A relative place is looked up from the working folder, as for the run)"
        raise InputError(hint) from error
    if data.data_checksum != run.about["data_checksum"]:
        raise InputError(
            f"{arguments['store']}: not the data of {run.path}", remedy="name the store the run was made of"
        )
    return data


def _class(path: str, base: type[T]) -> type[T]:
    """Import a class that a run names. Nothing is called before it is known to be one of ours."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: no such class ({error})", remedy="install the package that defines it") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{path}: not a {base.__name__}")
    return found
