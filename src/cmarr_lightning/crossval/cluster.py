"""Runs as jobs of a SLURM cluster, when one machine is outgrown."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cmarr_lightning.crossval.pool import Job, available_cores
from cmarr_lightning.errors import InputError, not_installed

if TYPE_CHECKING:
    import submitit

__all__ = ["make_executor", "parse_options", "run_jobs_on"]

_POLL_SECONDS = 1.0
_MINUTES = 24 * 60


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` words; values are YAML.

    Raises:
        InputError: No `=`.

    Examples:
        >>> parse_options(["slurm_partition=gpu", "gpus_per_node=1"])
        {'slurm_partition': 'gpu', 'gpus_per_node': 1}
    """
    for word in words:
        if not word.partition("=")[0].isidentifier() or "=" not in word:
            raise InputError(f"--slurm {word}", remedy="write KEY=VALUE, e.g. --slurm slurm_partition=gpu")
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def make_executor(folder: Path, at_once: int, options: Mapping[str, Any], kind: str = "slurm") -> submitit.AutoExecutor:
    """Find the cluster.

    Args:
        folder: Takes the scripts and the output of the jobs; all nodes must see it.
        at_once: How many jobs run at a time.
        options: Parameters of submitit, e.g. `slurm_partition`, `cpus_per_task`, `gpus_per_node`, `timeout_min`.
        kind: `slurm`, or `local` for processes of this machine.

    Raises:
        InputError: submitit is not installed, there is no cluster here, or it does not know an option.
    """
    if find_spec("submitit") is None:
        raise not_installed("submitit", "cluster")
    import submitit

    try:
        executor = submitit.AutoExecutor(folder.resolve(), cluster=kind)
        defaults = {"name": "cmarr", "timeout_min": _MINUTES, "slurm_array_parallelism": at_once}
        executor.update_parameters(**defaults | dict(options))
    except (RuntimeError, NameError) as error:
        raise InputError(
            f"--executor slurm: {error}",
            remedy="start it where `sbatch` works, with --slurm options of submitit, or use --executor local",
        ) from error
    return executor


def run_jobs_on(
    executor: submitit.AutoExecutor,
    jobs: Sequence[Job],
    *,
    starting: Callable[[Job], None],
    ended: Callable[[Job, int], None],
    waiting: Callable[[Sequence[Job]], None],
) -> None:
    """Run jobs on a cluster, as `pool.run_jobs` does here; what is unfinished when this is left is cancelled.

    All jobs are submitted at once, as one array. A process that is killed outright cannot cancel them: use `scancel`
    before the protocol is started again.

    Args:
        executor: From `make_executor`.
        jobs: What to run.
        starting: Called with a job just before it is submitted.
        ended: Called with a job and its exit code.
        waiting: Called about once per second with the jobs that have not ended.
    """
    for job in jobs:
        starting(job)
    if not jobs:
        return
    running = dict(zip(jobs, executor.map_array(_run, [j.command for j in jobs], [j.log for j in jobs]), strict=True))
    try:
        while running:
            for job, submitted in list(running.items()):
                if submitted.done():
                    del running[job]
                    ended(job, _exit_code(job, submitted))
            waiting(list(running))
            time.sleep(_POLL_SECONDS)
    finally:
        for submitted in running.values():
            submitted.cancel()


def _run(command: Sequence[str], log: Path) -> int:
    """Run a command on a node; it sees the end of its standard input when this process ends."""
    environment = {"OMP_NUM_THREADS": str(available_cores()), **os.environ}
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as file,
        subprocess.Popen(  # noqa: S603  (our own program, no shell)
            command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, env=environment
        ) as job,
    ):
        return job.wait()


def _exit_code(job: Job, submitted: submitit.Job[int]) -> int:
    """Get the exit code; a job that the cluster ended has none, and its log is told why."""
    import submitit

    try:
        return submitted.result()
    except submitit.core.utils.UncompletedJobError as error:
        with job.log.open("a", encoding="utf-8") as log:
            log.write(f"\nended by the cluster: {str(error).strip().splitlines()[0]}\n")
        return 1
