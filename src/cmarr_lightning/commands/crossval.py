"""`cmarr crossval`: every fold and seed of a configuration, and the summary."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cmarr_lightning.crossval.plan import Protocol

__all__ = ["HELP", "add_arguments", "add_protocol_arguments", "command_line", "config_words", "run"]

HELP = "train and test every fold and seed of a configuration, then summarise"

_DESCRIPTION = """Train and test every fold and seed of a configuration, then summarise.

Each run gets its own folder OUT/fold-<k>_seed-<s>. Started again with the same options, finished runs stay and
half-trained ones go on from their last checkpoint; once tested, a run keeps its best checkpoint only. Options of
`cmarr fit` may follow after --, for example
cmarr crossval -c cmarr.yaml --out cv --seeds 0,1,2 -- --trainer.max_epochs 30"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cmarr crossval`."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_protocol_arguments(parser)
    parser.add_argument("--seeds", default="0", metavar="S,S,...", help="seeds of the training (default: %(default)s)")
    parser.add_argument(
        "--variants",
        metavar="FILE",
        help="YAML: name -> part of a configuration; each is a protocol of its own in OUT/<name> (ablations, sweeps)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, which share the cores (default: one per core on a CPU, otherwise 1; on a cluster all)",
    )
    parser.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="where the runs are: processes here, or jobs of a SLURM cluster (extra `cluster`; default: %(default)s)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="parameter of submitit for --executor slurm, e.g. slurm_partition=gpu, cpus_per_task=4, timeout_min=60",
    )
    parser.add_argument(
        "--no-test",
        action="store_true",
        help="score the validation folds only, to choose settings; without it the same command scores the test folds",
    )
    parser.add_argument(
        "--keep-predictions",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the predictions of the test utterances; intervals and paired tests need them (default: keep)",
    )


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what all commands that go through the folds have in common."""
    parser.add_argument(
        "-c", "--config", action="append", required=True, metavar="CONFIG", help="configuration; later ones win"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of all runs and the tables")
    parser.add_argument("--folds", default="all", metavar="all|K,K,...", help="which folds (default: %(default)s)")
    parser.add_argument("--method", metavar="NAME", help="name in the tables (default: name of the method's class)")
    parser.add_argument("overrides", nargs="*", metavar="-- OPTION ...", help="further options of `cmarr fit`")


def config_words(args: argparse.Namespace, variant: Sequence[str] = ()) -> list[str]:
    """Get the words after `cmarr fit` that the arguments stand for.

    Args:
        args: The arguments of the command.
        variant: The words of one variant. They win over the configuration, and the options after `--` over them, so
            that these hold for all variants.
    """
    return [*(word for config in args.config for word in ("-c", config)), *variant, *args.overrides]


def command_line(name: str, args: argparse.Namespace) -> str:
    """Write down what was typed, as far as it bears on the results."""
    words = ["cmarr", name]
    for config in args.config:
        words += ["-c", config]
    for option in ("variants", "out", "seeds", "folds", "method", "machine"):
        if (value := getattr(args, option, None)) is not None:
            words += [f"--{option}", value]
    return shlex.join([*words, "--", *args.overrides] if args.overrides else words)


def run(args: argparse.Namespace) -> int:
    """Run the protocol, or one per variant; 1 when a run failed."""
    from pathlib import Path

    from rich.console import Console

    from cmarr_lightning.analysis.summary import conclude, conclude_validation, conclude_variants
    from cmarr_lightning.crossval.cluster import make_executor, parse_options
    from cmarr_lightning.crossval.plan import PROTOCOL, keep_protocol
    from cmarr_lightning.crossval.pool import exclusive
    from cmarr_lightning.crossval.runs import choose_jobs, finish_runs
    from cmarr_lightning.errors import InputError

    folder, console = Path(args.out), Console()
    if args.variants is not None and (folder / PROTOCOL).exists():
        raise InputError(f"{folder} holds runs without variants", remedy="choose another --out")
    protocols = _plan(args, folder)
    total = sum(len(protocol.runs) for protocol in protocols)
    jobs, executor = args.jobs, None
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}", remedy="use 1 or more")
    if args.executor == "slurm":
        executor = make_executor(folder / ".jobs", jobs or total, parse_options(args.slurm))
    elif args.slurm:
        raise InputError("--slurm without --executor slurm", remedy="give both")
    for protocol in protocols:
        keep_protocol(protocol.folder, protocol.identity)
    with exclusive(folder):
        try:
            failed = finish_runs(
                protocols,
                jobs=jobs or choose_jobs(protocols[0].config, total),
                keep_predictions=args.keep_predictions,
                console=console,
                executor=executor,
                last_stage="validate" if args.no_test else "test",
            )
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on from here.")
            return 130
        done = [p.folder for p in protocols if sum(run.parent == p.folder for run in failed) < len(p.runs)]
        if args.no_test and done:
            conclude_validation(done, console)
        elif args.variants is not None and done:
            conclude_variants(done, command_line("crossval", args), console)
        elif done:
            conclude(folder, command_line("crossval", args), console)
    if failed:
        names = ", ".join(sorted(run.relative_to(folder).as_posix() for run in failed))
        console.print(f"[red]Failed: {names}.[/red] The same command tries them again.")
    return 1 if failed else 0


def _plan(args: argparse.Namespace, folder: Path) -> list[Protocol]:
    """Resolve the configuration of every variant and choose its runs; nothing is written."""
    from cmarr_lightning.crossval.plan import (
        Protocol,
        build_data,
        choose_folds,
        identify,
        name_method,
        parse_numbers,
        resolve_configs,
    )
    from cmarr_lightning.crossval.variants import read_variants, variant_words
    from cmarr_lightning.errors import InputError

    if args.variants is not None and args.method is not None:
        raise InputError("--method with --variants", remedy="leave it out: each variant is a method of its own name")
    seeds = parse_numbers(args.seeds, "--seeds")
    variants = {"": {}} if args.variants is None else read_variants(args.variants)
    configs = resolve_configs({name: config_words(args, variant_words(o)) for name, o in variants.items()})
    protocols = []
    for name, config in configs.items():
        if config["model"] is None:
            raise InputError("the configuration names no model", remedy="add `model` with its class_path")
        data = build_data(config)
        runs = [(fold, seed) for seed in seeds for fold in choose_folds(data, args.folds)]
        method = name or args.method or name_method(config)
        protocols.append(Protocol(folder / name, identify(config, data, method), config, runs))
    return protocols
