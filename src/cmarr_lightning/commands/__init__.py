"""Commands besides training: each a thin module that parses its arguments, calls the package and prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from cmarr_lightning.errors import InputError

__all__ = ["COMMANDS", "run_command"]

COMMANDS: dict[str, str] = {
    "prepare": "cmarr_lightning.commands.prepare",
    "extract": "cmarr_lightning.commands.extract",
    "inspect": "cmarr_lightning.commands.inspect",
    "synthesize": "cmarr_lightning.commands.synthesize",
    "crossval": "cmarr_lightning.commands.crossval",
    "baseline": "cmarr_lightning.commands.baseline",
    "report": "cmarr_lightning.commands.report",
    "benchmark": "cmarr_lightning.commands.benchmark",
}
"""Name of a command -> its module, which has `HELP`, `add_arguments(parser)` and `run(args) -> exit code`.

Such a module imports inside `run` whatever takes long, so that `cmarr --help` answers at once.
"""


def run_command(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: Its name and arguments, as after `cmarr` on the command line.

    Returns:
        The exit code: 0, or 2 after an error of the input, which is printed to stderr.

    Raises:
        SystemExit: `--help`, or arguments that do not parse (code 2).
    """
    args = _parse(argv)
    try:
        code: int = import_module(COMMANDS[argv[0]]).run(args)
    except InputError as error:
        print(f"cmarr: error: {error}", file=sys.stderr)
        return 2
    return code


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse one command by a parser of its own, which lets options stand between positional arguments."""
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv[:1])  # help, or an error: leaves the program either way
    module = import_module(COMMANDS[argv[0]])
    parser = argparse.ArgumentParser(prog=f"cmarr {argv[0]}", description=module.HELP)
    module.add_arguments(parser)
    # Intermixed parsing goes over the words twice and loses what `--` protects, so then order matters as usual.
    return parser.parse_args(argv[1:]) if "--" in argv else parser.parse_intermixed_args(argv[1:])


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cmarr")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, path in COMMANDS.items():
        commands.add_parser(name, help=import_module(path).HELP)
    return parser
