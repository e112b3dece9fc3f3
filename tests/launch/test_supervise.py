"""Real launchers under supervision: nothing of a job outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_train.errors import SetupError
from hpc_train.launch import find, processes, run_ranks
from hpc_train.launch.start import forwarded

SUPERVISOR = """
import sys
from hpc_train import log
from hpc_train.launch import start_ranks
log.to_terminal()
sys.exit(start_ranks(sys.argv[2:], int(sys.argv[1])))
"""
RANK = """
import os, signal, sys, time
from pathlib import Path
from mpi4py import MPI
comm, folder = MPI.COMM_WORLD, Path(sys.argv[2])
if sys.argv[1] == "save":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
    comm.Barrier()
comm.Barrier()
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/sm_" in line}
(folder / "draft").mkdir(exist_ok=True)
(folder / "draft" / str(os.getpid())).write_text(" ".join(mapped))
(folder / "draft" / str(os.getpid())).rename(folder / str(os.getpid()))
if sys.argv[1] == "kill" and comm.rank == 1:
    while len(list(folder.iterdir())) <= comm.size:
        time.sleep(0.01)
    time.sleep(0.7)
    os.kill(os.getpid(), signal.SIGKILL)
while sys.argv[1] != "blocked" or comm.rank == 0:
    time.sleep(0.01) if sys.argv[1] == "save" else None
comm.Barrier()
"""


@pytest.fixture(scope="module", autouse=True)
def _launcher():
    try:
        find(os.environ)
    except SetupError as error:
        pytest.skip(str(error))


def runs(pid):
    """Whether a process exists and is not merely waiting for its parent to take notice."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


class Job:
    """A supervisor with three ranks that have all begun."""

    def __init__(self, folder, how, ranks=3):
        argv = [sys.executable, "-c", SUPERVISOR, str(ranks), sys.executable, "-c", RANK, how]
        self.process = subprocess.Popen(
            [*argv, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.folder, self.ranks = folder, ranks
        stop = time.monotonic() + 30
        while len(self.pids()) < ranks:
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < stop, "the ranks do not begin"
            time.sleep(0.02)

    def pids(self):
        return [int(path.name) for path in self.folder.iterdir() if path.is_file()]

    def alive(self):
        return [pid for pid in self.pids() if runs(pid)]

    def end(self):
        """Exit code, output and error output."""
        try:
            out, err = self.process.communicate(timeout=20)
        finally:
            processes.kill(self.alive())
            processes.kill([self.process.pid])
        return self.process.returncode, out, err


@pytest.mark.parametrize("how", ["busy", "blocked"])
def test_an_interrupt_ends_every_rank_at_once(tmp_path, how):
    job = Job(tmp_path, how)
    started = time.monotonic()
    os.kill(job.process.pid, signal.SIGINT)
    try:
        code, left = job.process.wait(10), job.alive()
        elapsed = time.monotonic() - started
    finally:
        ended = job.end()  # leaves none behind, whatever came of it
    assert (code, left) == (130, [])
    assert elapsed < 5
    assert ended == (130, "", "")


def test_the_ranks_of_a_killed_supervisor_end(tmp_path):
    job = Job(tmp_path, "busy")
    job.process.kill()
    stop = time.monotonic() + 5
    while job.alive() and time.monotonic() < stop:
        time.sleep(0.05)
    left = job.alive()
    job.end()
    assert left == []


def test_a_killed_rank_is_named_and_leaves_nothing(tmp_path):
    job = Job(tmp_path, "kill")
    code, out, err = job.end()
    assert (code, out) == (137, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: rank 1 on ")
    assert "was killed by SIGKILL" in lines[0]
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    assert job.alive() == []
    segments = {line for pid in job.pids() for line in (tmp_path / str(pid)).read_text().split()}
    assert [path for path in segments if Path(path).exists()] == []


def test_sigusr1_reaches_the_ranks(tmp_path):
    job = Job(tmp_path, "save")
    os.kill(job.process.pid, signal.SIGUSR1)
    assert job.end() == (0, "", "")


def test_output_passes_untouched_and_the_exit_status_is_the_launchers(capfd):
    write = "import os; os.write(1, b'a\\rb\\x00\\xff'); os.write(2, b'c'); os._exit(7)"
    assert run_ranks([sys.executable, "-c", write], os.environ).code == 7
    captured = capfd.readouterr()
    assert captured.out.encode("utf-8", "surrogateescape").startswith(b"a\rb\x00")
    assert captured.err == "c"


def test_processes_that_a_launcher_forgets_are_found(tmp_path):
    pid = tmp_path / "pid"
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60'], start_new_session=True, "
    code += "stdout=-3, stderr=-3); open(sys.argv[1], 'w').write(str(p.pid))"
    assert run_ranks([sys.executable, "-c", code, str(pid)], os.environ).code == 0
    assert not runs(pid.read_text())


def test_a_launcher_that_is_not_there_is_an_error():
    with pytest.raises(SetupError, match="cannot start /no/such/mpirun"):
        run_ranks(["/no/such/mpirun"], os.environ)


def test_ranks_on_other_nodes_get_our_variables():
    environ = {"HPC_TRAIN_DEBUG": "1", "PATH": "/bin", "OMP_NUM_THREADS": "2"}
    assert forwarded(environ) == ["HPC_TRAIN_DEBUG", "HPC_TRAIN_JOB", "OMP_NUM_THREADS"]


def test_what_killed_launchers_left_does_not_keep_the_next_from_starting(tmp_path):
    """Open MPI 5 fails where a dead one of the same process number left its files."""
    print_pid = [sys.executable, "-c", "import os; print(os.getpid())"]
    now = int(subprocess.run(print_pid, capture_output=True, check=True).stdout)
    for pid in range(now, now + 400):
        (tmp_path / f"ompi.{pid}").mkdir(mode=0o700)
        (tmp_path / f"ompi.{pid}" / f"pmix.{os.uname().nodename}.tool").touch(0o600)
    ended = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, "1", "true"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.iterdir())) == 400
