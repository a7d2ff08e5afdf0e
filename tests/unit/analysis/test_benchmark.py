"""The figures that follow from a measurement, and their table."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
from rich.console import Console

from cmarr_lightning.analysis.benchmark import Measurement, benchmark_table

MEASURED = Measurement(
    threads=1,
    batch_size=100,
    steps=30,
    passes=5,
    conditions=7,
    steps_per_epoch=20,
    gemm_gflops=170.0,
    step_s=0.25,
    step_s_p10=0.2,
    step_s_mean=0.3,
    step_cpu_s=0.24,
    step_cpu_s_p10=0.19,
    step_gflop=18.0,
    load_s=0.01,
    utterance_s=0.0005,
    utterance_s_p10=0.0004,
    utterance_cpu_s=0.0005,
    utterance_cpu_s_p10=0.0004,
    utterance_gflop=0.085,
    setup_s=8.0,
    epoch_end_s=1.0,
    test_s=12.0,
    peak_memory_bytes=1_900_000_000,
    mapped_memory_bytes=900_000_000,
    others_cores=0.1,
)


def test_derived_figures() -> None:
    assert MEASURED.training_speed == pytest.approx(400)
    assert MEASURED.inference_speed == pytest.approx(2000)
    assert MEASURED.training_gflop == pytest.approx(0.18)
    assert MEASURED.load_share == pytest.approx(0.04)
    # Ten times: setting up, 20 epochs of 20 steps of 0.3 s and 1 s of validation, the test.
    assert MEASURED.ten_folds_s == pytest.approx(10 * (8 + 20 * (20 * 0.3 + 1) + 12))


def test_table_has_every_figure_beside_target_and_reference() -> None:
    unknown = dataclasses.replace(MEASURED, threads=2, mapped_memory_bytes=None, others_cores=None)
    console = Console(width=200, file=StringIO())
    with console.capture() as capture:
        console.print(benchmark_table([MEASURED, unknown], "CMARRTask, made up (synthetic)"))
    text = capture.get()
    assert "CMARRTask, made up (synthetic)" in text
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]
    rows = {row[0]: row[1:] for row in cells if len(row) == 5}
    assert rows[""] == ["1 thread", "2 threads", "target", "IF-MMIN"]
    assert rows["data loading, share of the step"] == ["4.0 %", "4.0 %", "<= 5 %", ""]
    assert rows["wall s/step, median (10 %)"] == ["0.250 (0.200)"] * 2 + ["", ""]
    assert rows["peak memory, GB"] == ["1.90", "1.90", "<= 2", "4.3"]
    assert rows["of it mapped files"] == ["0.90", "unknown", "", ""]
    assert rows["ten folds with test, minutes"] == ["26.7", "26.7", "<= 20 (2 cores)", "336"]
    assert rows["cores used by others meanwhile"] == ["0.10", "unknown", "", ""]
    gflop = [row[1:] for row in cells if row[0] == "GFLOP-eq per utterance"]
    assert gflop == [["0.180", "0.180", "<= 0.2", "2.2"], ["0.085", "0.085", "<= 0.1", "3.7"]]
