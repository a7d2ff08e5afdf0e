"""The stop watch, driven by made-up actions and a made-up clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cmarr_lightning.analysis.machine import Clock
from cmarr_lightning.callbacks import benchmark
from cmarr_lightning.callbacks.benchmark import BenchmarkWriter, StepProfiler
from cmarr_lightning.errors import InputError

FETCH = "[_TrainingEpochLoop].train_dataloader_next"


class _World:
    """A clock that only moves when something happens; CPU time is half of wall time."""

    def __init__(self) -> None:
        self.wall = 1000.0

    def now(self) -> Clock:
        return Clock(self.wall, self.wall / 2)


class _Gemm:
    """A matrix product that takes 100 s and is measured at 10, 20, 30, ... GFLOP/s."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.rates: list[float] = []

    def measure(self) -> float:
        self.world.wall += 100
        self.rates.append(10.0 * (len(self.rates) + 1))
        return self.rates[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> _World:
    world = _World()
    monkeypatch.setattr(Clock, "now", world.now)
    monkeypatch.setattr(benchmark, "GemmMeter", lambda: _Gemm(world))
    return world


def _epoch(profiler: StepProfiler, world: _World, steps: int, validation: float = 50.0) -> None:
    """Act like Lightning: 1 s to fetch, 4 s to train, 2 s for callbacks, 0.5 s to log; then validate."""
    for _ in range(steps):
        profiler.start(FETCH)
        world.wall += 1
        profiler.stop(FETCH)
        with profiler.profile("run_training_batch"):
            world.wall += 4
        with profiler.profile("[LightningModule]Task.on_train_batch_end"):
            world.wall += 2
        world.wall += 0.5
    with profiler.profile("[_EvaluationLoop].val_next"):
        world.wall += validation
    profiler.stop("run_training_epoch")


def test_a_step_is_everything_between_two_requests_for_a_batch(world: _World) -> None:
    profiler = StepProfiler()
    _epoch(profiler, world, 3)
    assert profiler.steps == []  # two to warm up; the last one runs into the validation
    _epoch(profiler, world, 4)
    assert len(profiler.steps) == 2  # one more to warm up, the last one
    for i, step in enumerate(profiler.steps):
        assert (step.wall, step.cpu, step.load) == (7.5, 3.75, 1.0)
        assert step.gflop == 3.75 * (10 * (5 + i) + 10 * (6 + i)) / 2  # rates before and after the step


def test_epoch_ends_are_timed_without_the_matrix_product(world: _World) -> None:
    profiler = StepProfiler()
    for validation in (50.0, 60.0, 70.0):
        _epoch(profiler, world, 2, validation)
    assert profiler.epoch_ends == [50.5, 60.5]  # what came after the third is not over


def test_steps_of_later_epochs_are_not_measured(world: _World) -> None:
    profiler = StepProfiler(epochs=2)
    for steps in (4, 3, 9):
        _epoch(profiler, world, steps)
    assert len(profiler.steps) == 2  # three to warm up, the last one of each epoch
    assert profiler.epoch_ends == [50.5, 50.5]


def test_epochs_of_one_step_are_refused_with_a_remedy(world: _World, tmp_path: Path) -> None:
    profiler = StepProfiler()
    for _ in range(5):
        _epoch(profiler, world, 1)
    trainer = SimpleNamespace(profiler=profiler, datamodule=None, num_training_batches=1)
    writer = BenchmarkWriter(str(tmp_path / "figures.json"), started=0.0)
    with pytest.raises(InputError, match=r"an epoch has 1 batches.*smaller --batch-size"):
        writer.on_fit_end(cast(Any, trainer), cast(Any, None))
    assert list(tmp_path.iterdir()) == []
