"""Processes found by their token, and files that nobody else can own."""

import os
import signal
import subprocess
import sys

from hpc_train.launch import processes


def sleeper(token):
    return subprocess.Popen(["sleep", "60"], env={processes.JOB: token})


def test_processes_are_found_by_their_token_and_killed():
    token = f"test-{os.getpid()}"
    with sleeper(token) as first, sleeper(token) as second, sleeper(token + "0") as other:
        try:
            assert processes.of_job(token) == sorted([first.pid, second.pid])
            processes.kill([first.pid])
            first.wait()
            assert processes.end(token) == []
            assert second.wait() == -signal.SIGKILL
            assert processes.of_job(token + "0") == [other.pid]
        finally:
            processes.kill([first.pid, second.pid, other.pid])


def test_the_grace_lets_processes_end_by_themselves():
    token = f"grace-{os.getpid()}"
    with subprocess.Popen(["sleep", "0.2"], env={processes.JOB: token}) as process:
        # Its parent must reap it for the kernel to forget it; until then its environment is empty.
        assert processes.end(token, grace_seconds=5.0) == []
        assert process.wait() == 0


def test_only_segments_that_the_job_had_mapped_and_nobody_uses_are_removed():
    folder = processes.SHARED_MEMORY
    mine = folder / f"sm_segment.test.{os.getpid()}.1"
    used = folder / f"sm_segment.test.{os.getpid()}.2"
    alien = folder / f"not_mpi.{os.getpid()}"
    code = (
        "import mmap, sys, time\n"
        "files = [open(name, 'r+b') for name in sys.argv[1:]]\n"
        "maps = [mmap.mmap(file.fileno(), 4096) for file in files]\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    children = []
    try:
        for path in (mine, used, alien):
            path.write_bytes(bytes(4096))
        for names in ((mine, used, alien), (used,)):
            argv = [sys.executable, "-c", code, *map(str, names)]
            children.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
            assert children[-1].stdout.readline() == b"ready\n"
        found = processes.segments([children[0].pid])
        assert found == {mine, used}
        assert processes.sweep(found) == []
        children[0].kill()
        children[0].wait()
        assert processes.sweep(found) == [mine]
        assert not mine.exists()
        assert used.exists()
    finally:
        for child in children:
            child.kill()
            child.communicate()
        for path in (mine, used, alien):
            path.unlink(missing_ok=True)


def test_a_process_that_has_gone_has_no_segments():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.segments([process.pid]) == set()
