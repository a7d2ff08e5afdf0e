"""The machine a measurement was made on: what it is, how fast it multiplies, who else uses it, memory."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from cmarr_lightning.analysis.provenance import git_commit, package_versions

__all__ = ["Clock", "GemmMeter", "OthersMeter", "describe_machine", "mapped_memory", "peak_memory"]

_GEMM_SIZE = 2048
_PROC = Path("/proc")


class Clock(NamedTuple):
    """Seconds that a stretch of work took, or a reading of both clocks.

    Attributes:
        wall: Wall time, s.
        cpu: CPU time of all threads of this process, s.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clock:
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Clock) -> Clock:
        """Return what passed between two readings."""
        return Clock(self.wall - start.wall, self.cpu - start.cpu)


class GemmMeter:
    """Measure again and again what a CPU second is worth: the rate of a float32 2048 x 2048 matrix product.

    Attributes:
        rates: What was measured, GFLOP per CPU second (of one core, however many compute).
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self._factor = torch.randn(_GEMM_SIZE, _GEMM_SIZE, generator=torch.Generator().manual_seed(0))
        self._product = torch.empty_like(self._factor)
        torch.mm(self._factor, self._factor, out=self._product)  # the first call sets the library up

    def measure(self) -> float:
        """Multiply once; return the rate."""
        start = Clock.now()
        torch.mm(self._factor, self._factor, out=self._product)
        self.rates.append(2 * _GEMM_SIZE**3 / Clock.now().since(start).cpu / 1e9)
        return self.rates[-1]


class OthersMeter:
    """Measure how busy other processes keep the machine, from the moment it is made."""

    def __init__(self) -> None:
        self._start = Clock.now()
        self._busy = _busy_seconds()

    def cores(self) -> float | None:
        """Return the average number of cores in use by others so far; None where /proc/stat is missing."""
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        passed = Clock.now().since(self._start)
        return max(0.0, (busy - self._busy - passed.cpu) / passed.wall)


def peak_memory() -> int:
    """Return the largest resident set of this process so far, in bytes, mapped files included.

    Linux hands `ru_maxrss` of a parent on to the program that its child starts, so that a small program started
    from a large one looks large; VmHWM belongs to the program alone.
    """
    if (peak := _status("VmHWM")) is not None:
        return peak
    maxrss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maxrss if sys.platform == "darwin" else maxrss * 1024


def mapped_memory() -> int | None:
    """Return the part of the resident set that maps files, in bytes; None where it cannot be told.

    Processes share these pages, and the system takes them back when memory runs short.
    """
    return _status("RssFile")


def describe_machine() -> dict[str, str | int | None]:
    """Tell processor, cores, system, versions, and the commit of this package's checkout if it is one."""
    model = re.search(r"^model name\s*:\s*(.+)$", _read(_PROC / "cpuinfo"), re.MULTILINE)
    return {
        "processor": model[1].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        **package_versions(),
        "commit": git_commit(),
    }


def _status(key: str) -> int | None:
    """Look a size up in /proc/self/status, in bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _read(_PROC / "self" / "status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _busy_seconds() -> float | None:
    """Return the CPU seconds that all processes (and the hypervisor's others) have used since boot."""
    line = _read(_PROC / "stat").partition("\n")[0].split()
    if line[:1] != ["cpu"]:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
