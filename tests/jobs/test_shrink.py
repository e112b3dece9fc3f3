"""Each collective loses a rank in the middle; the survivors sum on, on nodes that are made up."""

import json
import os
import sys

import pytest

from hpc_train.launch import find, launching
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.processes import Job

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

# six ranks, two nodes (0 1 2 | 3 4 5); one rank is lost in each turn, the first one too
SCRIPT = """\
import json
import os
import signal

import torch
from mpi4py import MPI

from hpc_train.comm import Comm, Fabric, FabricError, FabricSum, prepare

mine = MPI.COMM_WORLD.rank
comm = Comm(MPI, MPI.COMM_WORLD, key=f"n{mine // 3}/boot")
assert comm.fault_tolerant
found = []


def prepared(name, buffer):
    if name != "gloo":  # which stands for NCCL
        return prepare(name, comm, buffer)
    fabric = comm.fabrics["gloo"] = Fabric(comm, "gloo")
    return FabricSum(fabric, buffer)


for name, victim in (("gloo", 5), ("native", 1), ("ring", 0), ("hierarchical", 4), ("shared", 2)):
    if name == "shared" and comm.world.num_nodes > 1:
        name = "auto"
    buffer = comm.allocate(300_000, torch.float64)
    operation = prepared(name, buffer)
    buffer.fill_(mine + 1)
    try:
        for step in range(1000):
            if step == 7 and mine == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            operation.launch()
            operation.finish()
            comm.gather(step)
            buffer.fill_(mine + 1)
        raise SystemExit("nobody died")
    except (MPI.Exception, FabricError) as error:
        assert comm.is_lost(error), error
    comm.shrink()
    again = comm.allocate(300_000, torch.float64)
    again.fill_(mine + 1)
    repeated = prepared(name, again)
    again.fill_(mine + 1)
    repeated.launch()
    repeated.finish()
    expected = float(sum(member + 1 for member in comm.members))
    found.append([list(comm.members), comm.world.nodes, [str(one) for one in comm.lost],
                  bool((again == expected).all())])
print(json.dumps(found), flush=True)
comm.depart(0)
"""


def test_every_collective_survives_a_death_in_the_middle(tmp_path):
    (tmp_path / "sums.py").write_text(SCRIPT)
    program = [sys.executable, "-m", "mpi4py", str(tmp_path / "sums.py")]
    with launching(program, 6, fault_tolerant=True) as call:
        ended = Job(call.argv, cwd=tmp_path, env=call.environ).end(120)
    found = json.loads(ended.out.strip().splitlines()[-1])
    members = [[0, 1, 2, 3, 4], [0, 2, 3, 4], [2, 3, 4], [2, 3], [3]]
    assert [members for members, *_ in found] == members, ended
    assert [nodes for _, nodes, *_ in found][:2] == [[0, 0, 0, 1, 1], [0, 0, 1, 1]]
    assert [nodes for _, nodes, *_ in found][2:] == [[0, 1, 1], [0, 1], [0]]
    assert [lost[-1] for *_, lost, _ in found] == [
        "rank 5 on n1",
        "rank 1 on n0",
        "rank 0 on n0",
        "rank 4 on n1",
        "rank 2 on n0",
    ]
    assert all(right for *_, right in found), ended
