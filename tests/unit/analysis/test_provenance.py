"""Commit and versions."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

import cmarr_lightning
from cmarr_lightning.analysis.provenance import git_commit, package_versions


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = [shutil.which("git") or "git", *who, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the package lies in a checkout of its own."""
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "-q")
    monkeypatch.setattr(cmarr_lightning, "__file__", str(folder / "__init__.py"))
    return folder


def test_the_commit_of_the_checkout(package: Path):
    git(package, "add", ".")
    git(package, "commit", "-qm", "first")
    head = git(package, "rev-parse", "HEAD")
    assert git_commit() == head
    (package / "__init__.py").write_text("changed = True")
    assert git_commit() == f"{head}-dirty"


def test_a_package_inside_the_checkout_of_something_else_has_no_commit(package: Path):
    (package.parent / "theirs.txt").write_text("")
    git(package.parent, "add", "theirs.txt")
    git(package.parent, "commit", "-qm", "first")
    assert git_commit() is None


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_versions_are_those_installed():
    versions = package_versions()
    assert versions["torch"] == version("torch")
    assert versions["cmarr-lightning"] == cmarr_lightning.__version__
    assert "python" in versions
