"""Where a result comes from: the commit of the code and the versions of what it stands on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cmarr_lightning

__all__ = ["git_commit", "package_versions"]

_PACKAGES = ("cmarr-lightning", "torch", "lightning", "torchmetrics", "nflows", "numpy", "pandas", "scikit-learn")


def git_commit() -> str | None:
    """Get the commit of this package's checkout, with `-dirty` after it where its files have been changed since.

    None where the package is not installed from a checkout: a copy in a virtual environment that lies in the
    checkout of something else does not have that one's commit.
    """
    package = Path(cmarr_lightning.__file__).parent
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        answer = subprocess.run(  # noqa: S603  (fixed words, no shell)
            [git, "-C", str(package), *words], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None or not ask("ls-files", "__init__.py"):
        return None
    return f"{commit}-dirty" if ask("status", "--porcelain", "--untracked-files=no", ".") else commit


def package_versions() -> dict[str, str]:
    """List Python and the packages that results depend on; those not installed are left out."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
