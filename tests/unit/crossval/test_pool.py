"""Child processes: order, threads, logs, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cmarr_lightning.crossval.pool import Job, available_cores, exclusive, last_lines, run_jobs
from cmarr_lightning.errors import InputError


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, (sys.executable, "-c", code), folder / name / "log.txt")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


class Record:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.codes: dict[str, int] = {}
        self.most = 0

    def starting(self, job: Job) -> None:
        self.started.append(job.name)

    def ended(self, job: Job, code: int) -> None:
        self.codes[job.name] = code

    def waiting(self, running: Sequence[Job]) -> None:
        self.most = max(self.most, len(running))

    def run(self, jobs: Sequence[Job], at_once: int) -> None:
        run_jobs(jobs, at_once, starting=self.starting, ended=self.ended, waiting=self.waiting)


def test_a_failing_job_does_not_stop_the_others(tmp_path: Path):
    record = Record()
    record.run([job(tmp_path, "a", "raise SystemExit(3)"), job(tmp_path, "b", "print('fine')")], 1)
    assert record.started == ["a", "b"]
    assert record.codes == {"a": 3, "b": 0}
    assert (tmp_path / "b" / "log.txt").read_text() == "fine\n"


def test_not_more_jobs_at_once_than_asked_for(tmp_path: Path):
    record = Record()
    record.run([job(tmp_path, str(i), "import time; time.sleep(0.3)") for i in range(5)], 2)
    assert record.most == 2
    assert set(record.codes.values()) == {0}


@pytest.mark.parametrize("given", [None, "3"])
def test_children_share_the_cores_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("cmarr_lightning.crossval.pool.available_cores", lambda: 8)
    Record().run([job(tmp_path, "a", "import os; print(os.environ['OMP_NUM_THREADS'])")], 2)
    assert (tmp_path / "a" / "log.txt").read_text().strip() == (given or "4")


def test_cores_are_those_this_process_may_use():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_output_and_errors_go_behind_what_the_log_holds(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.txt").write_text("before\n")
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    Record().run([job(tmp_path, "a", code)], 1)
    assert (tmp_path / "a" / "log.txt").read_text() == "before\nout\nerr\n"


def test_last_lines_say_something(tmp_path: Path):
    (tmp_path / "log.txt").write_text("\n".join(f"line {i}\n   " for i in range(9)))
    assert last_lines(tmp_path / "log.txt", 2) == "line 7\nline 8"
    assert last_lines(tmp_path / "none.txt") == ""


def test_an_interrupt_leaves_no_child(tmp_path: Path):
    class Interrupted(Record):
        def waiting(self, running: Sequence[Job]) -> None:
            if (tmp_path / "pid").exists():
                raise KeyboardInterrupt

    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        Interrupted().run([job(tmp_path, "a", code)], 1)
    assert wait_until(lambda: (tmp_path / "pid").read_text() != "")
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path):
    child = (
        "import os, time; from cmarr_lightning.crossval.run import end_with_parent; end_with_parent();"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = (
        "import sys; from pathlib import Path; from cmarr_lightning.crossval.pool import Job, run_jobs;"
        f"job = Job('a', (sys.executable, '-c', {child!r}), Path({str(tmp_path / 'log.txt')!r}));"
        "nothing = lambda *_: None; run_jobs([job], 1, starting=nothing, ended=nothing, waiting=nothing)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    written = tmp_path / "pid"
    assert wait_until(lambda: written.exists() and written.read_text(), 30)
    pid = int(written.read_text())
    assert alive(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not alive(pid))


def test_only_one_works_in_a_folder(tmp_path: Path):
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    with exclusive(out), pytest.raises(InputError, match="another process works in"), exclusive(out):
        pass
    with exclusive(out):
        assert out.is_dir()
