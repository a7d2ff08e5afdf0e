"""The wheel, the pinned environment and the commands of the README agree with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cmarr_lightning.commands import COMMANDS

STAGES = {"fit", "validate", "test", "predict"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without network from a copy of what git holds of the package."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def setup_cfg(root: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """The versions of constraints.txt by canonical name."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("#")[0].strip() for line in lines]
    matches = {line: re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s=*]+)", line) for line in found if line}
    assert not [line for line, match in matches.items() if match is None]
    pinned = {canonicalize_name(match[1]): match[2] for match in matches.values() if match}
    assert len(pinned) == len(matches)
    return pinned


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def listed(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line.strip()]


def without_marker(requirement: Requirement) -> tuple[str, frozenset[str], str]:
    return canonicalize_name(requirement.name), frozenset(requirement.extras), str(requirement.specifier)


def test_the_wheel_declares_what_setup_cfg_says(wheel: zipfile.ZipFile, setup_cfg: ConfigParser):
    about = metadata(wheel)
    assert about["Name"] == setup_cfg["metadata"]["name"] == "cmarr-lightning"
    assert about["Version"] == setup_cfg["metadata"]["version"]
    assert about["Requires-Python"] == setup_cfg["options"]["python_requires"]
    assert about["License-Expression"] == "MIT" or about["License"] == "MIT"

    declared = [Requirement(line) for line in about.get_all("Requires-Dist")]
    always = {without_marker(r) for r in declared if r.marker is None}
    assert always == {without_marker(r) for r in listed(setup_cfg["options"]["install_requires"])}

    extras = setup_cfg["options.extras_require"]
    assert (
        set(about.get_all("Provides-Extra")) == set(extras) == {"baselines", "cluster", "dev", "extract", "notebooks"}
    )
    for extra in extras:
        mine = {without_marker(r) for r in declared if r.marker and r.marker.evaluate({"extra": extra})}
        assert mine == {without_marker(r) for r in listed(extras[extra])}


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile, root: Path):
    package = root / "src" / "cmarr_lightning"
    files = {p.relative_to(root / "src") for p in package.rglob("*") if p.suffix in {".py", ".typed", ".jinja"}}
    held = {Path(name) for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files
    assert Path("cmarr_lightning/py.typed") in held
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    points = ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"cmarr": "cmarr_lightning.cli:main"}


def test_metadata_stands_in_one_place(root: Path):
    """A [project] table would hide the overlapping part of setup.cfg."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert "project" not in pyproject
    assert pyproject["build-system"]["build-backend"] == "setuptools.build_meta"
    assert not (root / "setup.py").exists()


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3", "2.6.5", "2.5.0"])
def test_no_compromised_or_vulnerable_lightning_is_accepted(setup_cfg: ConfigParser, version: str):
    (bound,) = (r for r in listed(setup_cfg["options"]["install_requires"]) if r.name == "lightning")
    assert version not in bound.specifier
    assert "2.6.6" in bound.specifier


def test_the_pinned_environment_satisfies_the_requirements(pins: dict[str, str], setup_cfg: ConfigParser):
    assert pins["torch"] == "2.13.0"
    wanted = listed(setup_cfg["options"]["install_requires"])
    for extra in ("baselines", "dev"):
        wanted += listed(setup_cfg["options.extras_require"][extra])
    for requirement in wanted:
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_installed_versions_are_the_pinned_ones(pins: dict[str, str]):
    versions = {name: installed.version for name in pins if (installed := _installed(name))}
    assert {"torch", "lightning", "nflows", "jsonargparse", "wandb"} <= versions.keys()
    assert {name: version.split("+")[0] for name, version in versions.items()} == {
        name: pins[name] for name in versions
    }


def test_everything_the_package_needs_is_pinned(pins: dict[str, str]):
    """Whatever an installation brings along, directly or not."""
    needed, queue = set(), [("cmarr-lightning", "dev")]
    while queue:
        name, *extras = queue.pop()
        installed = _installed(name)
        if installed is None:
            continue
        for requirement in map(Requirement, installed.requires or []):
            contexts = [{"extra": extra} for extra in (*extras, "")]
            if requirement.marker is None or any(map(requirement.marker.evaluate, contexts)):
                key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
                if key not in needed:
                    needed.add(key)
                    queue.append(key)
    names = {name for name, *_ in needed if _installed(name)}
    assert len(names) > 80
    assert not sorted(names - pins.keys())


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def test_the_two_commands_of_the_readme_are_targets_and_ci_runs_the_second(root: Path):
    readme, makefile, ci = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile", ".ci/run"))
    blocks = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", readme, re.DOTALL))
    for command in ("make demo", "make test"):
        assert re.search(rf"^{command}\b", blocks, re.MULTILINE)
        assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)
    steps = [line for line in ci.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert steps == ["make test"]
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert check in makefile
    assert makefile.count("--constraint constraints.txt") >= 2


def test_the_commands_and_files_in_the_readme_exist(root: Path):
    readme = (root / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\bcmarr ([a-z]+)\b", readme))
    assert used >= STAGES - {"validate"} | {"prepare", "inspect"}
    assert used <= STAGES | set(COMMANDS)
    files = set(re.findall(r"\b(?:experiments|docs|notebooks)/[\w./-]+\w", readme))
    assert files
    assert not [name for name in files if not (root / name).exists()]
