"""Two processes with half a batch each compute what one process computes with the whole batch."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SCENARIOS = ("mixed", "drawn", "staged", "one rank lacks a modality", "one rank has no pair")
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def one(gappy_store: Path) -> Results:
    """What one process measures."""
    measured: Results = runpy.run_path(str(Path(__file__).with_name("worker.py")))["measure"](str(gappy_store))
    return measured


@pytest.fixture(scope="module")
def two(
    gappy_store: Path, tmp_path_factory: pytest.TempPathFactory, two_processes: Callable[..., None]
) -> list[Results]:
    """What each of two processes measures."""
    out = tmp_path_factory.mktemp("out")
    two_processes(Path(__file__).with_name("worker.py"), gappy_store, out)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


def joined(gradients: dict[str, Tensor], part: str = "") -> Tensor:
    """Write the gradients of the parameters that belong to a part as one vector."""
    return torch.cat([gradient.flatten() for name, gradient in gradients.items() if name.startswith(part)])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_losses_equal_those_of_one_process(one: Results, two: list[Results], scenario: str):
    expected = one[scenario]["terms"]
    assert {"cls", "align", "recon", "nll", "refine", "total", "loss"} == expected.keys()
    assert all(expected[name] > 0 for name in ("cls", "align", "nll", "refine"))
    for rank in two:
        torch.testing.assert_close(rank[scenario]["terms"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_gradients_equal_those_of_one_process(one: Results, two: list[Results], scenario: str):
    expected = one[scenario]["gradients"]
    assert joined(expected).norm() > 0.1
    for rank in two:
        assert rank[scenario]["gradients"].keys() == expected.keys()
        torch.testing.assert_close(rank[scenario]["gradients"], expected, rtol=1e-4, atol=1e-5)


def test_every_part_of_the_network_learns(one: Results):
    """The comparison of gradients says nothing about a part whose gradient is zero on both sides."""
    gradients = one["mixed"]["gradients"]
    parts = {name.rsplit(".", 1)[0] for name in gradients}
    silent = [part for part in parts if not joined(gradients, part).any()]
    assert not silent


def test_the_processes_stay_equal(two: list[Results]):
    for scenario in SCENARIOS:
        torch.testing.assert_close(two[0][scenario]["after"], two[1][scenario]["after"], rtol=0, atol=0)


def compare(one: Results, two: list[Results], mode: str) -> tuple[float, float]:
    """Compare the encoders' gradient of the alignment loss with that of one process: relative norm, cosine."""
    expected = joined(one["align gradient"]["gradients"], "network.encoder.")
    found = joined(two[0][f"align {mode}"]["gradients"], "network.encoder.")
    cosine = torch.nn.functional.cosine_similarity(found, expected, dim=0)
    return (found.norm() / expected.norm()).item(), cosine.item()


def test_a_gather_with_gradients_needs_no_factor(one: Results, two: list[Results]):
    norm, cosine = compare(one, two, "gradient")
    assert norm == pytest.approx(1, abs=1e-4)
    assert cosine == pytest.approx(1, abs=1e-5)


def test_keys_gathered_without_gradients_lose_about_half_of_the_gradient(one: Results, two: list[Results]):
    """Each process contrasts its own rows with all; the rows of the others learn nothing from that."""
    torch.testing.assert_close(
        two[0]["align local anchors"]["terms"]["align"] + two[1]["align local anchors"]["terms"]["align"],
        2 * one["align gradient"]["terms"]["align"],
    )  # the loss looks right
    norm, cosine = compare(one, two, "local anchors")
    assert 0.35 < norm < 0.65
    assert 0.9 < cosine < 0.9999


def test_without_a_gather_the_gradient_points_elsewhere(one: Results, two: list[Results]):
    """Only half of the negatives are seen."""
    norm, cosine = compare(one, two, "none")
    assert 0.7 < norm < 1.3
    assert cosine < 0.999
