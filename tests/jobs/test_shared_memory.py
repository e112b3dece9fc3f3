"""Shared memory of a job that is killed goes with its processes."""

import sys
from pathlib import Path

from hpc_train import shm
from tests.jobs.processes import Job, mpirun

SCRIPT = """\
import os
import signal

import torch

from hpc_train.comm import connect, prepare

comm = connect()
buffer = comm.allocate(2**20, torch.float32)
mine = prepare("shared", comm, buffer)
private = prepare("hierarchical", comm, torch.ones(2**20))
with open("/proc/self/maps") as maps:
    names = {line.split()[-2] for line in maps if "/dev/shm/hpc_train-" in line}
if comm.world.is_coordinator:
    print("mapped", *names, flush=True)
comm.meet()
for step in range(10**9):
    if step == 3 and comm.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    mine.launch()
    private.launch()
"""


def test_a_killed_job_leaves_nothing_in_shared_memory(tmp_path):
    (tmp_path / "sums.py").write_text(SCRIPT)
    argv, extra = mpirun(3, [sys.executable, str(tmp_path / "sums.py")])
    ended = Job(argv, cwd=tmp_path, env=extra).end(60)
    assert ended.code != 0, ended
    line = next(line for line in ended.out.splitlines() if line.startswith("mapped"))
    names = line.split()[1:]
    assert len(names) == 2, ended
    assert all(name.startswith(str(shm.FOLDER)) for name in names)
    assert not any(Path(name).exists() for name in names)
