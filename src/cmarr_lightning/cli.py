"""The command line: `cmarr fit | validate | test | predict` by Lightning, other commands from `commands`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from cmarr_lightning.commands import COMMANDS, run_command
from cmarr_lightning.errors import InputError

__all__ = ["main"]

_ENDED = 128 + 15
_STAGES = ("fit", "validate", "test", "predict")

_NOT_FOR_USERS = (
    ".*LightningCLI's args parameter is intended.*",
    ".*does not have many workers.*",  # reading a batch from the maps takes less time than passing it on
    ".*module.s. in eval mode at the start of training.*",  # the frozen teacher of a resumed second stage
    ".*couldn't infer the batch indices.*",  # the rows travel in the batch
    ".*loading a checkpoint outside the 'fit' stage.*",  # its weights are the averaged ones already
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6.6 under torch 2.13
)

_HELP = """usage: cmarr COMMAND [arguments]

Train and score (Lightning; add --help for every option):
  fit         train:    cmarr fit -c CONFIG [-c CONFIG ...] [--run FOLDER] [--ckpt_path last]
  validate    score the validation fold:  cmarr validate --run FOLDER
  test        score the test fold:        cmarr test --run FOLDER
  predict     score every utterance:      cmarr predict --run FOLDER [--data.store STORE]

Data and measurements:
{commands}
  --version   print the version
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The words after `cmarr`; those of the process by default.

    Returns:
        The exit code: 0; 2 when input, a setting or a checkpoint cannot be used (the message says what to mend); 143
        when SIGTERM ended a stage.

    Raises:
        SystemExit: `--help`, or options that do not parse (code 2).
    """
    argv = list(sys.argv[1:] if args is None else args)
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(_HELP.format(commands=_list_commands()), end="")
        return 0
    if command == "--version":
        from cmarr_lightning import __version__

        print(__version__)
        return 0
    if command in COMMANDS:
        return run_command(argv)
    if command not in _STAGES:
        known = ", ".join((*_STAGES, *COMMANDS))
        print(f"cmarr: error: unknown command {command!r}. Remedy: use one of {known}.", file=sys.stderr)
        return 2
    return _run_stage(argv)


def _run_stage(argv: list[str]) -> int:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from cmarr_lightning.run_folder import resolve_run
    from cmarr_lightning.stages import CMARRCLI

    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    try:
        arguments, run = resolve_run(argv)
        CMARRCLI(run, arguments)
    except (InputError, MisconfigurationException) as error:
        print(f"cmarr: error: {error}", file=sys.stderr)
        return 2
    except SIGTERMException:  # without a code, which would end the process as if all was done
        print(f"cmarr: error: {argv[0]} was ended by SIGTERM.", file=sys.stderr)
        return _ENDED
    return 0


def _list_commands() -> str:
    from importlib import import_module

    return "\n".join(f"  {name:<11} {import_module(path).HELP}" for name, path in COMMANDS.items())
