"""Resolve configurations in a process of its own: lists of words as JSON on stdin, the answers on stdout."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from cmarr_lightning.cli import main as cmarr

__all__ = ["answer"]


def answer(words: Sequence[str]) -> tuple[int, str]:
    """Let `cmarr fit` say everything that it would use.

    Args:
        words: As after `cmarr fit`.

    Returns:
        0 and the configuration as YAML, or another exit code and the message of the error.
    """
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as told:
        try:
            code: object = cmarr(["fit", *words, "--print_config"])
        except SystemExit as end:
            code = end.code
    if code:
        message = (told.getvalue().strip().splitlines() or ["no message"])[-1]
        return 2, message.removeprefix("cmarr: error: ")
    return 0, printed.getvalue()


if __name__ == "__main__":
    print(json.dumps([answer(words) for words in json.load(sys.stdin)]))
