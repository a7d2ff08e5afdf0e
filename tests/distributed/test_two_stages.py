"""Two processes train, choose and test a teacher and its student as one process with the whole batch does."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

WORKER = Path(__file__).with_name("peers_worker.py")
Results = dict[str, Any]


@pytest.fixture(scope="module")
def one(tiny_store: Path) -> Results:
    """What one process measures."""
    measured: Results = runpy.run_path(str(WORKER))["measure"](str(tiny_store), "MMIN")
    return measured


@pytest.fixture(scope="module")
def peers(
    tiny_store: Path, tmp_path_factory: pytest.TempPathFactory, two_processes: Callable[..., None]
) -> list[dict[str, Results]]:
    """What each of two processes measures, per peer; all in one group, as processes take seconds to start."""
    out = tmp_path_factory.mktemp("out")
    two_processes(WORKER, tiny_store, out)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def two(peers: list[dict[str, Results]]) -> list[Results]:
    """What each of two processes measures of the peer that one process trained too."""
    return [rank["MMIN"] for rank in peers]


def joined(weights: dict[str, Tensor], part: str) -> Tensor:
    """Write the weights of a part as one vector."""
    return torch.cat([value.flatten() for name, value in weights.items() if name.startswith(part)])


def test_the_processes_end_with_equal_weights(two: list[Results]):
    torch.testing.assert_close(two[0]["weights"], two[1]["weights"], rtol=0, atol=0)


@pytest.mark.parametrize("part", ["teacher.", "student.encoders.", "student.forward_cascade.", "student.classifier."])
def test_the_weights_are_those_of_one_process(one: Results, two: list[Results], part: str):
    found, expected = joined(two[0]["weights"], part), joined(one["weights"], part)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_the_processes_choose_the_same_teacher(one: Results, two: list[Results]):
    assert len(one["teacher_scores"]) == 2
    assert one["best_uar"] == max(one["teacher_scores"])
    for rank in two:
        assert rank["teacher_scores"] == pytest.approx(one["teacher_scores"], abs=1e-9)
        assert rank["best_uar"] == two[0]["best_uar"]


def test_scores_are_those_of_one_process_on_the_same_rows(one: Results, two: list[Results]):
    counted = two[0]["confusion"] + two[1]["confusion"]
    assert counted.sum(dim=(1, 2)).tolist() == one["confusion"].sum(dim=(1, 2)).tolist()
    for rank in two:
        assert rank["tested"] == pytest.approx(one["tested"], abs=1e-9)
        assert rank["validated"].keys() == one["validated"].keys()


def test_each_stage_steps_its_own_network_only(one: Results, two: list[Results]):
    """A network that is not trained has neither gradients nor momentum, in several processes as in one."""
    assert len(set(map(float, one["optimizer"]))) == 1
    for rank in two:
        assert list(map(float, rank["optimizer"])) == list(map(float, one["optimizer"]))


@pytest.mark.parametrize("name", ["IF-MMIN", "NMER"])
def test_processes_agree_where_each_compares_the_moments_of_its_own_rows(
    name: str, one: Results, peers: list[dict[str, Results]]
):
    first, second = (rank[name] for rank in peers)
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert first["teacher_scores"] == second["teacher_scores"]
    assert first["tested"] == second["tested"]
    counted = first["confusion"] + second["confusion"]
    assert counted.sum(dim=(1, 2)).tolist() == one["confusion"].sum(dim=(1, 2)).tolist()
