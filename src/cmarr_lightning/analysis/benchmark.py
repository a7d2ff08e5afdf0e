"""Speed and memory of training and inference, in seconds and in units that carry over between machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

__all__ = ["EPOCHS", "FOLDS", "Measurement", "benchmark_table"]

EPOCHS = 20
"""Epochs of the default recipe, experiments/configs/trainer/default.yaml."""
FOLDS = 10
"""Folds of IEMOCAP, and of the synthetic corpus made after it, when one speaker is left out."""


@dataclass(frozen=True)
class Measurement:
    """What one process measured: medians, and with `_p10` the 10 % quantiles.

    Attributes:
        threads: Threads of the process.
        batch_size: Utterances per training step.
        steps: Training steps measured.
        passes: Passes over the test fold measured.
        conditions: Conditions that inference scores each utterance under.
        steps_per_epoch: Batches of a whole epoch.
        gemm_gflops: Rate of a float32 matrix product between the steps, GFLOP per CPU second.
        step_s: Wall time of a training step: batch, forward, losses, backward, clipping, AdamW, averaged weights.
        step_s_p10: Of the same.
        step_s_mean: Mean of the same; an epoch takes this times its steps.
        step_cpu_s: CPU time of a training step.
        step_cpu_s_p10: Of the same.
        step_gflop: CPU time of a training step times the rate of the matrix product just before and after it.
        load_s: Part of `step_s` that is spent waiting for the batch.
        utterance_s: Wall time per utterance of inference under all conditions.
        utterance_s_p10: Of the same.
        utterance_cpu_s: CPU time per utterance of inference under all conditions.
        utterance_cpu_s_p10: Of the same.
        utterance_gflop: CPU time per utterance of inference times the rate of the matrix product.
        setup_s: From the start of the program to the first step: imports, checksums, statistics.
        epoch_end_s: Validation, checkpoints and logs after an epoch.
        test_s: The test stage from the start of the program to its end.
        peak_memory_bytes: Largest resident set, mapped files included.
        mapped_memory_bytes: Mapped files in the resident set at the end; None where it cannot be told.
        others_cores: Cores that other processes kept busy meanwhile; None where it cannot be told.
    """

    threads: int
    batch_size: int
    steps: int
    passes: int
    conditions: int
    steps_per_epoch: int
    gemm_gflops: float
    step_s: float
    step_s_p10: float
    step_s_mean: float
    step_cpu_s: float
    step_cpu_s_p10: float
    step_gflop: float
    load_s: float
    utterance_s: float
    utterance_s_p10: float
    utterance_cpu_s: float
    utterance_cpu_s_p10: float
    utterance_gflop: float
    setup_s: float
    epoch_end_s: float
    test_s: float
    peak_memory_bytes: int
    mapped_memory_bytes: int | None
    others_cores: float | None

    @property
    def training_speed(self) -> float:
        """Utterances trained on per second."""
        return self.batch_size / self.step_s

    @property
    def inference_speed(self) -> float:
        """Utterances scored under all conditions per second."""
        return 1 / self.utterance_s

    @property
    def training_gflop(self) -> float:
        """GFLOP-equivalents per utterance of a training step."""
        return self.step_gflop / self.batch_size

    @property
    def load_share(self) -> float:
        """Share of a training step that is spent waiting for the batch, in [0, 1]."""
        return self.load_s / self.step_s

    @property
    def ten_folds_s(self) -> float:
        """Estimate of training and testing ten folds, one after another, by the default recipe, s."""
        epoch = self.steps_per_epoch * self.step_s_mean + self.epoch_end_s
        return FOLDS * (self.setup_s + EPOCHS * epoch + self.test_s)


@dataclass(frozen=True)
class _Row:
    """A line of the table: a figure, our target, and what IF-MMIN needs as released."""

    name: str
    figure: Callable[[Measurement], str]
    target: str = ""
    released: str = ""


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


_ROWS = (
    _Row("training, utterances/s", lambda m: f"{m.training_speed:,.0f}"),
    _Row("  wall s/step, median (10 %)", lambda m: f"{m.step_s:.3f} ({m.step_s_p10:.3f})"),
    _Row("  CPU s/step, median (10 %)", lambda m: f"{m.step_cpu_s:.3f} ({m.step_cpu_s_p10:.3f})"),
    _Row("  GFLOP-eq per utterance", lambda m: f"{m.training_gflop:.3f}", "<= 0.2", "2.2"),
    _Row("  data loading, share of the step", lambda m: f"{100 * m.load_share:.1f} %", "<= 5 %"),
    _Row("inference, utterances/s", lambda m: f"{m.inference_speed:,.0f}"),
    _Row(
        "  wall ms/utterance, median (10 %)",
        lambda m: f"{1e3 * m.utterance_s:.2f} ({1e3 * m.utterance_s_p10:.2f})",
    ),
    _Row(
        "  CPU ms/utterance, median (10 %)",
        lambda m: f"{1e3 * m.utterance_cpu_s:.2f} ({1e3 * m.utterance_cpu_s_p10:.2f})",
    ),
    _Row("  GFLOP-eq per utterance", lambda m: f"{m.utterance_gflop:.3f}", "<= 0.1", "3.7"),
    _Row("peak memory, GB", lambda m: f"{m.peak_memory_bytes / 1e9:.2f}", "<= 2", "4.3"),
    _Row("  of it mapped files", lambda m: _or_unknown(m.mapped_memory_bytes and m.mapped_memory_bytes / 1e9)),
    _Row("ten folds with test, minutes", lambda m: f"{m.ten_folds_s / 60:.1f}", "<= 20 (2 cores)", "336"),
    _Row("matrix product, GFLOP per CPU s", lambda m: f"{m.gemm_gflops:.0f}"),
    _Row("cores used by others meanwhile", lambda m: _or_unknown(m.others_cores)),
)


def benchmark_table(measurements: Sequence[Measurement], title: str) -> Table:
    """Lay measurements out beside the targets and what IF-MMIN needs as released."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for m in measurements:
        table.add_column(f"{m.threads} thread{'s' if m.threads > 1 else ''}", justify="right")
    table.add_column("target", justify="right")
    table.add_column("IF-MMIN", justify="right")
    for row in _ROWS:
        if not row.name.startswith(" "):
            table.add_section()
        table.add_row(row.name, *(row.figure(m) for m in measurements), row.target, row.released)
    return table
