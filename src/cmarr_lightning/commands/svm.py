"""`cmarr svm`: the same protocol with one RBF support vector machine per condition."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from cmarr_lightning.commands.crossval import add_protocol_arguments, command_line, config_words

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cmarr_lightning.data.datamodule import FeatureDataModule

__all__ = ["HELP", "add_arguments", "run"]

HELP = "test one support vector machine per condition on the same folds and rows"

_DESCRIPTION = """Train one RBF support vector machine per condition on the training rows of each fold, and test it.

C = 2, gamma = 1 / number of modalities present, balanced classes: fixed, not tuned. Reads `data` of the configuration
and leaves the same tables as `cmarr crossval`. Needs scikit-learn: pip install cmarr-lightning[baselines]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr svm`."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_protocol_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the protocol."""
    from pathlib import Path

    from rich.console import Console

    from cmarr_lightning.analysis.kernel_baseline import PARAMETERS, require_sklearn
    from cmarr_lightning.analysis.runs import is_finished, run_name
    from cmarr_lightning.analysis.summary import conclude
    from cmarr_lightning.crossval.plan import (
        build_data,
        choose_folds,
        identify,
        keep_protocol,
        resolve_config,
        run_about,
    )
    from cmarr_lightning.crossval.pool import exclusive

    require_sklearn()
    folder, console = Path(args.out), Console()
    config = {"data": resolve_config(config_words(args))["data"], "svm": PARAMETERS}
    data = build_data(config)
    folds = choose_folds(data, args.folds)
    identity = identify(config, data, args.method or "RBF-SVM")
    keep_protocol(folder, identity)
    with exclusive(folder):
        data.prepare_data()
        for fold in folds:
            path = folder / run_name(fold, 0)
            if not is_finished(path):
                _run_fold(path, build_data(config, fold), run_about(identity, config, fold, 0), console)
        conclude(folder, command_line("svm", args), console)
    return 0


def _run_fold(path: Path, data: FeatureDataModule, about: dict[str, Any], console: Console) -> None:
    """Train, test and write one fold; it is finished when its `about.json` is there."""
    from rich.progress import track

    from cmarr_lightning.analysis.evaluation import ABOUT, write_evaluation, write_noisy
    from cmarr_lightning.analysis.kernel_baseline import CLEAN, predict_conditions, tabulate
    from cmarr_lightning.analysis.runs import write_results
    from cmarr_lightning.files import replacing
    from cmarr_lightning.modalities import all_conditions

    total = len(all_conditions(data.modalities))
    predicted = dict(track(predict_conditions(data), path.name, total=total, console=console))
    names, confusion, predictions = tabulate(data, {c: classes[CLEAN] for c, classes in predicted.items()})
    write_evaluation(
        path / "test",
        confusion,
        names,
        data.class_names,
        num_incomplete=total - 1,
        about={"stage": "test"} | about,
        predictions=predictions,
    )
    noisy = {
        noise.name: tabulate(data, {c: classes[noise.name] for c, classes in predicted.items()})[1][:total]
        for noise in data.test_noise
    }
    if noisy:
        write_noisy(path / "test", noisy, names[:total], data.class_names)
    with replacing(path / ABOUT) as temporary:
        temporary.write_text(json.dumps(about | {"finished": ["test"]}, indent=2), encoding="utf-8")
    write_results(path.parent)
