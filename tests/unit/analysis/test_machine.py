"""What is told about the machine: from made-up files of /proc and clocks, and once from the real one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cmarr_lightning.analysis import machine
from cmarr_lightning.analysis.machine import (
    Clock,
    GemmMeter,
    OthersMeter,
    describe_machine,
    mapped_memory,
    peak_memory,
)


def _set_clock(monkeypatch: pytest.MonkeyPatch, *readings: tuple[float, float]) -> None:
    clocks = iter([Clock(*reading) for reading in readings])
    monkeypatch.setattr(Clock, "now", lambda: next(clocks))


def test_rate_is_operations_per_cpu_second_whatever_the_wall_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = GemmMeter()
    _set_clock(monkeypatch, (0.0, 1.0), (9.0, 1.5))
    assert meter.measure() == pytest.approx(2 * 2048**3 / 0.5 / 1e9)
    assert meter.rates == [pytest.approx(34.36, abs=0.01)]


def test_others_are_what_is_busy_less_our_own_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    (tmp_path / "stat").write_text("cpu  100 0 0 5000 70 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
    _set_clock(monkeypatch, (50.0, 1.0), (54.0, 3.0))
    meter = OthersMeter()
    # 8 s of work by all (user, system, steal), idle and waiting time aside; 2 s of it ours, in 4 s.
    busy = 100 + 4 * ticks, 3 * ticks, 1 * ticks
    (tmp_path / "stat").write_text(f"cpu  {busy[0]} 0 {busy[1]} 9999 99 0 0 {busy[2]} 0 0\n")
    assert meter.cores() == pytest.approx(1.5)


def test_without_proc_the_others_are_unknown_and_memory_is_that_of_rusage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    assert OthersMeter().cores() is None
    assert mapped_memory() is None
    assert peak_memory() > 50e6
    assert describe_machine()["cores"] == os.cpu_count()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory_counts_what_was_touched_and_given_back() -> None:
    before = peak_memory()
    room = 200_000_000 + max(0, before - _resident())
    np.ones(room, dtype=np.uint8).sum()
    assert peak_memory() - before > 150_000_000
    mapped = mapped_memory()
    assert mapped is not None
    assert 0 < mapped < peak_memory()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
