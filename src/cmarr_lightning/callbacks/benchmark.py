"""Stop watches of `cmarr benchmark`, which `cmarr fit` carries: nothing of a real run is left out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from cmarr_lightning.analysis.machine import Clock, GemmMeter, OthersMeter, mapped_memory, peak_memory
from cmarr_lightning.data.datamodule import FeatureDataModule
from cmarr_lightning.errors import InputError
from cmarr_lightning.files import replacing
from cmarr_lightning.tasks.base import EmotionTask

__all__ = ["BenchmarkWriter", "StepProfiler", "Timing", "time_inference"]

_WARM_UP = 3


class Timing(NamedTuple):
    """What one step, or one utterance of a pass, took.

    Attributes:
        wall: Wall time, s.
        cpu: CPU time, s.
        gflop: CPU time times the rate of a matrix product just before and after.
        load: Wall time spent waiting for the batch, s; in training only.
    """

    wall: float
    cpu: float
    gflop: float
    load: float = 0.0


class StepProfiler(Profiler):
    """Time whole training steps: from asking for a batch to asking for the next, whatever happens between.

    The last step of an epoch, which runs into the validation, is left out, and so are the first three. Between
    two steps the rate of a matrix product is measured, so that it sees the same neighbours as the steps do.

    Args:
        epochs: Epochs whose steps are measured, from the first on; by default all.

    Attributes:
        gemm: The rate of the matrix product.
        steps: Whole steps.
        epoch_ends: Wall time from the end of the last step of an epoch to the first of the next, s.
        began: When the first batch was asked for, in seconds since 1970.
    """

    def __init__(self, epochs: int | None = None) -> None:
        super().__init__()
        self.epochs = epochs
        self.gemm = GemmMeter()
        self.steps: list[Timing] = []
        self.epoch_ends: list[float] = []
        self.began = 0.0
        self._over = 0  # epochs
        self._warm = 0
        self._asked: Clock | None = None  # for the batch of a step that is not over
        self._loaded = self._stepped = Clock(0.0, 0.0)

    def start(self, action_name: str) -> None:
        """Take the request for a training batch as the end of one step and the start of the next."""
        if not action_name.endswith(".train_dataloader_next"):
            return
        now = Clock.now()
        rate = (self.gemm.rates[-1] + self.gemm.measure()) / 2 if self.gemm.rates else self.gemm.measure()
        if not self.began:
            self.began = time.time()
        elif self._asked is None:
            self.epoch_ends.append(now.since(self._stepped).wall)
        elif self._warm < _WARM_UP:
            self._warm += 1
        elif self._over != self.epochs:
            passed, load = now.since(self._asked), self._loaded.since(self._asked)
            self.steps.append(Timing(*passed, gflop=passed.cpu * rate, load=load.wall))
        self._asked = Clock.now()

    def stop(self, action_name: str) -> None:
        """Note when the batch is there, when its step is done and when the epoch is over."""
        if action_name.endswith(".train_dataloader_next"):
            self._loaded = Clock.now()
        elif action_name.endswith(".on_train_batch_end"):
            self._stepped = Clock.now()
        elif action_name == "run_training_epoch":
            self._asked = None
            self._over += 1


class BenchmarkWriter(Callback):
    """After training, time the inference and write what was measured as JSON.

    Args:
        path: The file.
        started: When the program was started, in seconds since 1970.
    """

    def __init__(self, path: str, started: float) -> None:
        self.path = Path(path)
        self.started = started
        self._others: OthersMeter | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch the others."""
        self._others = OthersMeter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file.

        Raises:
            InputError: The epochs are too short to have whole steps.
        """
        task, data = cast(EmotionTask, pl_module), cast(FeatureDataModule, getattr(trainer, "datamodule", None))
        profiler = cast(StepProfiler, getattr(trainer, "profiler", None))
        if not profiler.steps or not profiler.epoch_ends:
            raise InputError(
                f"no whole training step could be measured: an epoch has {trainer.num_training_batches} batches",
                remedy="use a smaller --batch-size",
            )
        inference = time_inference(task, data, profiler.gemm)
        figures = {
            "threads": torch.get_num_threads(),
            "batch_size": data.batch_size,
            "steps": len(profiler.steps),
            "passes": len(inference),
            "conditions": len(task.conditions),
            "steps_per_epoch": len(data.split.train) // data.batch_size,
            "gemm_gflops": np.median(profiler.gemm.rates),
            "step_s_mean": np.mean([step.wall for step in profiler.steps]),
            "load_s": np.median([step.load for step in profiler.steps]),
            "setup_s": profiler.began - self.started,
            "epoch_end_s": np.median(profiler.epoch_ends),
            "peak_memory_bytes": peak_memory(),
            "mapped_memory_bytes": mapped_memory(),
            "others_cores": self._others and self._others.cores(),
            **_quantiles("step", profiler.steps),
            **_quantiles("utterance", inference),
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(figures), encoding="utf-8")


def time_inference(task: EmotionTask, data: FeatureDataModule, gemm: GemmMeter, passes: int = 5) -> list[Timing]:
    """Score the test fold under all conditions several times.

    Returns:
        Per pass the time per utterance, loading included. An earlier pass, to warm up, is left out.
    """
    times = []
    task.eval()
    with torch.inference_mode():
        for _ in range(passes + 1):
            before, utterances, start = gemm.measure(), 0, Clock.now()
            for i, batch in enumerate(data.test_loaders()[0]):
                task.predict_step(batch, i)
                utterances += len(batch)
            wall, cpu = (seconds / utterances for seconds in Clock.now().since(start))
            times.append(Timing(wall, cpu, gflop=cpu * (before + gemm.measure()) / 2))
    return times[1:]


def _quantiles(name: str, times: Sequence[Timing]) -> dict[str, float]:
    """Summarise times under the names of `Measurement`."""
    wall, cpu, gflop, _ = np.transpose(times)
    return {
        f"{name}_s": np.median(wall),
        f"{name}_s_p10": np.quantile(wall, 0.1),
        f"{name}_cpu_s": np.median(cpu),
        f"{name}_cpu_s_p10": np.quantile(cpu, 0.1),
        f"{name}_gflop": np.median(gflop),
    }
