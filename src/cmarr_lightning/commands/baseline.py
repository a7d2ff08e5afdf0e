"""`cmarr baseline`: the same protocol with one classifier of scikit-learn per condition."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from cmarr_lightning.commands.crossval import add_protocol_arguments, command_line, config_words

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cmarr_lightning.analysis.kernel_baseline import Machine
    from cmarr_lightning.data.datamodule import FeatureDataModule

__all__ = ["HELP", "add_arguments", "run"]

HELP = "test one support vector machine or logistic regression per condition on the same folds and rows"

_DESCRIPTION = """Train one RBF support vector machine (or logistic regression) per condition on the training rows of
each fold, and test it. C and gamma are those of the highest UAR on the validation fold; the classes are balanced. Reads
`data` of the configuration and leaves the same tables as `cmarr crossval`. Needs scikit-learn,
the extra `baselines`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr baseline`."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--machine", choices=("svm", "logistic"), default="svm", help="the classifier (default: %(default)s)"
    )
    add_protocol_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the protocol."""
    from pathlib import Path

    from rich.console import Console

    from cmarr_lightning.analysis.kernel_baseline import SETTINGS, TITLES, require_sklearn
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
    config = {
        "data": resolve_config(config_words(args))["data"],
        "machine": args.machine,
        "settings": SETTINGS[args.machine],
    }
    data = build_data(config)
    folds = choose_folds(data, args.folds)
    identity = identify(config, data, args.method or TITLES[args.machine])
    keep_protocol(folder, identity)
    with exclusive(folder):
        data.prepare_data()
        for fold in folds:
            path = folder / run_name(fold, 0)
            if not is_finished(path):
                _run_fold(path, build_data(config, fold), args.machine, run_about(identity, config, fold, 0), console)
        conclude(folder, command_line("baseline", args), console)
    return 0


def _run_fold(path: Path, data: FeatureDataModule, machine: Machine, about: dict[str, Any], console: Console) -> None:
    """Train, test and write one fold; it is finished when its `about.json` is there."""
    from rich.progress import track

    from cmarr_lightning.analysis.evaluation import ABOUT, write_evaluation, write_noisy
    from cmarr_lightning.analysis.kernel_baseline import CLEAN, predict_conditions, tabulate
    from cmarr_lightning.analysis.protocol import write_results
    from cmarr_lightning.files import replacing
    from cmarr_lightning.modalities import all_conditions, condition_name

    total = len(all_conditions(data.modalities))
    fitted = list(track(predict_conditions(data, machine), path.name, total=total, console=console))
    about |= {"chosen": {condition_name(one.condition): one.settings for one in fitted}}
    names, confusion, predictions = tabulate(data, {one.condition: one.predicted[CLEAN] for one in fitted})
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
        noise.name: tabulate(data, {one.condition: one.predicted[noise.name] for one in fitted})[1][:total]
        for noise in data.test_noise
    }
    if noisy:
        write_noisy(path / "test", noisy, names[:total], data.class_names)
    with replacing(path / ABOUT) as temporary:
        temporary.write_text(json.dumps(about | {"finished": ["test"]}, indent=2), encoding="utf-8")
    write_results(path.parent)
