"""Every notebook runs from its first cell to its last, on a user's folder, by changing one path."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from cmarr_lightning.errors import InputError

NAMES = ("confusion_matrices", "loss_weights", "missing_conditions", "representations")


def read(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def run(notebook: dict[str, Any], path: Path) -> list[Any]:
    """Run the code cells as a kernel would, with `path` in the first line; get the value that each cell shows.

    In this process: a kernel would spend most of the time on starting.
    """
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells[0], changed = re.subn(r'\A(\w+) = ".*"', lambda match: f"{match[1]} = {str(path)!r}", cells[0])
    assert changed == 1, "the first code cell begins with the path"
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        code = "\n".join(line for line in cell.splitlines() if not line.startswith("%"))  # magics are the kernel's
        *body, last = ast.parse(code).body
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))  # noqa: S307
        else:
            exec(compile(ast.Module([*body, last], []), "cell", "exec"), names)  # noqa: S102
    return shown


@pytest.fixture
def sweep(tiny_protocol: Path, tmp_path: Path) -> Path:
    """Two protocols that differ in a weight."""
    for weight in (0.0, 0.5):
        folder = shutil.copytree(tiny_protocol, tmp_path / "sweep" / f"align-{weight}")
        for path in folder.glob("fold-*/about.json"):
            about = json.loads(path.read_text())
            about["config"]["model"]["init_args"]["weight_align"] = weight
            path.write_text(json.dumps(about))
    return tmp_path / "sweep"


@pytest.mark.parametrize(
    ("name", "figures", "tables"),
    [("confusion_matrices", 3, 0), ("missing_conditions", 1, 2), ("representations", 1, 1)],
)
def test_it_runs_on_a_protocol(root: Path, tiny_protocol: Path, name: str, figures: int, tables: int):
    if name == "representations":
        pytest.importorskip("sklearn")
    shown = run(read(root, name), tiny_protocol)
    assert sum(isinstance(value, Figure) for value in shown) == figures
    assert sum(isinstance(value, pd.DataFrame) and len(value) > 0 for value in shown) == tables
    assert any("synthetic data" in value for value in shown if isinstance(value, str))


def test_loss_weights_run_on_a_sweep(root: Path, sweep: Path):
    table, figure, best = run(read(root, "loss_weights"), sweep)
    assert sorted(table["weight_align"]) == [0.0, 0.5]
    assert [axis.get_xlabel() for axis in figure.axes] == ["weight_align"]
    assert best["runs"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_runs_says_so(root: Path, tmp_path: Path, name: str):
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path))}: no finished run"):
        run(read(root, name), tmp_path)


def test_these_are_all_notebooks(root: Path):
    assert sorted(path.stem for path in (root / "notebooks").glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped(root: Path, name: str):
    notebook = read(root, name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("name", NAMES)
def test_code_is_calls_not_definitions(root: Path, name: str):
    for cell in read(root, name)["cells"]:
        if cell["cell_type"] == "code":
            assert len(cell["source"]) <= 12
            assert not any(re.match(r"\s*(def|class|for|while) ", line) for line in cell["source"])
