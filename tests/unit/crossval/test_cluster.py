"""Jobs of a cluster, with submitit's executor for this machine in place of SLURM."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cmarr_lightning.crossval import cluster
from cmarr_lightning.crossval.cluster import make_executor, parse_options, run_jobs_on
from cmarr_lightning.crossval.pool import Job
from cmarr_lightning.errors import InputError

UncompletedJobError = pytest.importorskip("submitit").core.utils.UncompletedJobError


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[[str, str], Job]:
    def make(name: str, code: str) -> Job:
        return Job(name, (sys.executable, "-c", code), tmp_path / name / "log.txt")

    return make


def test_jobs_end_with_their_exit_codes_and_logs(tmp_path: Path, make_job: Callable[[str, str], Job]):
    jobs = [make_job("good", "print('fine')"), make_job("bad", "raise SystemExit(3)")]
    told: list[object] = []
    run_jobs_on(
        make_executor(tmp_path / "jobs", 2, {}, kind="local"),
        jobs,
        starting=lambda job: told.append(("starting", job.name)),
        ended=lambda job, code: told.append((job.name, code)),
        waiting=lambda running: None,
    )
    assert told[:2] == [("starting", "good"), ("starting", "bad")]
    assert sorted(told[2:]) == [("bad", 3), ("good", 0)]
    assert jobs[0].log.read_text() == "fine\n"


def test_nothing_to_do_submits_nothing(tmp_path: Path):
    executor = make_executor(tmp_path / "jobs", 1, {}, kind="local")
    run_jobs_on(executor, [], starting=print, ended=print, waiting=print)
    assert not list((tmp_path / "jobs").iterdir())


def test_what_is_unfinished_is_cancelled(
    tmp_path: Path, make_job: Callable[[str, str], Job], request: pytest.FixtureRequest
):
    beats = tmp_path / "beats"
    code = f"""
import pathlib, time
from cmarr_lightning.crossval.run import end_with_parent
end_with_parent()
for beat in range(300):
    pathlib.Path({str(beats)!r}).write_text(str(beat))
    time.sleep(0.1)"""

    def interrupt(running: object) -> None:
        if beats.exists():
            raise KeyboardInterrupt

    executor = make_executor(tmp_path / "jobs", 1, {}, kind="local")
    # submitit cancels by SIGINT, which a shell lets its background processes, and so what they start, ignore.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt):
        run_jobs_on(executor, [make_job("long", code)], starting=print, ended=print, waiting=interrupt)
    for _ in range(10):  # a busy machine takes its time
        last = beats.read_text()
        time.sleep(1)
        if beats.read_text() == last:
            break
    assert beats.read_text() == last
    assert last != "299"


def test_a_job_that_the_cluster_ends_has_failed_and_its_log_says_so(
    tmp_path: Path, make_job: Callable[[str, str], Job]
):
    class Ended:
        """A job without a result, as one that ran out of time."""

        def result(self) -> int:
            raise UncompletedJobError("Job has timed out\nmore")

    job = make_job("killed", "")
    job.log.parent.mkdir()
    assert cluster._exit_code(job, Ended()) == 1
    assert job.log.read_text().strip() == "ended by the cluster: Job has timed out"


def test_options_are_those_of_submitit(tmp_path: Path):
    options = parse_options(["cpus_per_task=4", "slurm_additional_parameters={qos: high}"])
    assert options == {"cpus_per_task": 4, "slurm_additional_parameters": {"qos": "high"}}
    assert make_executor(tmp_path, 1, options | {"timeout_min": 5}, kind="local").parameters["timeout_min"] == 5
    with pytest.raises(InputError, match=r"--executor slurm: .*partitions"):
        make_executor(tmp_path, 1, {"partitions": "gpu"}, kind="local")


def test_a_protocol_runs_on_it(
    tmp_path: Path,
    config: Path,
    tiny_store: Path,
    cmarr: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(cluster, "make_executor", partial(make_executor, kind="local"))
    words = ("crossval", "-c", config, "--out", "cv", "--folds", "0", "--executor", "slurm")
    assert cmarr(*words, "--", "--data.store", tiny_store, "--trainer.max_epochs", 1) == 0
    assert "fold-0_seed-0: mean of incomplete: WAR" in capfd.readouterr().out
    assert (tmp_path / "cv" / "results.csv").exists()
    assert [path.name for path in (tmp_path / "cv").iterdir() if path.is_dir()] in (
        ["fold-0_seed-0", ".jobs"],
        [".jobs", "fold-0_seed-0"],
    )
