"""Child processes: some at a time, each with its share of threads and a log of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cmarr_lightning.errors import InputError

__all__ = ["Job", "available_cores", "exclusive", "last_lines", "run_jobs"]

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: What it is called in messages.
        command: Program and arguments.
        log: File that takes its output, after what is in it.
    """

    name: str
    command: Sequence[str]
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    *,
    starting: Callable[[Job], None],
    ended: Callable[[Job, int], None],
    waiting: Callable[[Sequence[Job]], None],
) -> None:
    """Run jobs in child processes; however this function is left, none of them stays behind.

    Each child gets `cores // at_once` threads unless OMP_NUM_THREADS is set, and a standard input that ends with
    this process.

    Args:
        jobs: What to run, in this order.
        at_once: How many at a time.
        starting: Called with a job just before it starts.
        ended: Called with a job and its exit code.
        waiting: Called a few times per second with the running jobs.
    """
    environment = {"OMP_NUM_THREADS": str(max(1, available_cores() // at_once)), **os.environ}
    pending, running = list(jobs), dict[Job, "subprocess.Popen[bytes]"]()
    try:
        while pending or running:
            while pending and len(running) < at_once:
                job = pending.pop(0)
                starting(job)
                running[job] = _start(job, environment)
            for job, process in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[job]
                    ended(job, code)
            waiting(list(running))
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(list(running.values()))


def available_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_lines(path: Path, count: int = 5) -> str:
    """Get the last lines of a log that say something."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from working in the same folder; it is made if it is not there.

    The lock ends with this process, however that ends. Where the system has no `fcntl` (Windows) there is none.

    Raises:
        InputError: Another one works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process works in {folder}", remedy="wait for it, or choose another --out"
            ) from error
        yield


def _start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  (our own program, no shell)
            job.command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; we end the children
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
