"""The one exception that tells a user what to mend."""

from __future__ import annotations

__all__ = ["InputError", "not_installed"]


class InputError(ValueError):
    """Input that cannot be used: a file, a setting, a checkpoint.

    The message names what is wrong, where (file, utterance, key) and the remedy. The command line prints it
    without a traceback and exits with code 2.

    Examples:
        >>> raise InputError("store.json: not found", remedy="write a store with `cmarr prepare`")
        Traceback (most recent call last):
            ...
        cmarr_lightning.errors.InputError: store.json: not found. Remedy: write a store with `cmarr prepare`.
    """

    def __init__(self, problem: str, *, remedy: str | None = None) -> None:
        problem = problem.rstrip(".")
        super().__init__(f"{problem}." if remedy is None else f"{problem}. Remedy: {remedy.rstrip('.')}.")


def not_installed(package: str, extra: str) -> InputError:
    """Return the error that a package of an extra is not installed.

    Examples:
        >>> str(not_installed("submitit", "cluster"))
        "submitit is not installed. Remedy: in the project's clone: pip install -c constraints.txt -e '.[cluster]'."
    """
    remedy = f"in the project's clone: pip install -c constraints.txt -e '.[{extra}]'"
    return InputError(f"{package} is not installed", remedy=remedy)
