"""Ranks die while all of a node read one sum: each batch counts once, from all its samples."""

import json
import os
import sys

import pytest

from hpc_train.launch import command, find
from hpc_train.launch.machine import this_machine
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.processes import Job

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

# a batch is twelve samples, whose gradients any number of ranks share among each other
SCRIPT = """\
import json
import os
import signal
import time

import numpy as np
import torch
from mpi4py import MPI

from hpc_train.comm import connect
from hpc_train.optim import Settings, clip_factor
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import AllReduce, Layout, Learner, Means, Sharding, Tally, allreduce

DEATHS = [(1, 0, "updating"), (4, 2, "scaled"), (7, 3, "releasing")]  # batch, rank, instant
STEPS = 9
mine = MPI.COMM_WORLD.rank
allreduce._ONCE_BYTES = 1


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(40, 100), torch.nn.Linear(100, 90)).double()


def learner_of(model):
    settings = Settings(lr=0.01, weight_decay=0.1)
    return Learner("main", list(model.named_parameters()), "lamb", settings, clip_norm=0.5)


def gradient(model, batch, samples):
    for sample in samples:
        rng = np.random.default_rng([batch, sample])
        for parameter in model.parameters():
            parameter.grad += torch.from_numpy(rng.standard_normal(parameter.shape))


def scheduler(size):
    return Scheduler(find_policy("static"), Situation.unknown(12, size, None, 1), 99)


def deadly(function, name):
    def call():
        if instant == name:
            time.sleep(0.2)  # the others go on
            os.kill(os.getpid(), signal.SIGKILL)
        return function()

    return call


comm = connect()
model = network()
learner = learner_of(model)
learner.step = deadly(learner.step, "updating")
strategy = AllReduce(comm, model, [learner], Layout([], comm.world.size),
                     scheduler(comm.world.size), Means(),
                     sharding=Sharding(False, survives=True))
batch, repeated, once = 0, 0, []
while batch < STEPS:
    instant = next((i for b, r, i in DEATHS if b == batch and r == mine), "")
    reading = strategy._reading(learner)
    if reading is not None and reading._sum.finish.__name__ != "call":
        reading._sum.finish = deadly(reading._sum.finish, "scaled")
        reading._sum.release = deadly(reading._sum.release, "releasing")
    once.append(reading is not None)
    try:
        strategy.begin(learner)
        gradient(model, batch, range(comm.world.rank, 12, comm.world.size))
        learner.gather()
        outcome = strategy.finish(learner, Tally(weight=3.0 if comm.world.rank == 0 else 0.0))
        assert outcome.updated
        batch += 1
    except MPI.Exception as error:
        assert comm.is_lost(error), error
        comm.shrink()
        assert strategy.recover(is_open=True) is None
        repeated += 1
        places = comm.gather(batch)
        assert len(set(places)) == 1, places
        strategy.regroup(Layout([], comm.world.size), scheduler(comm.world.size))

calm = network()
alone = learner_of(calm)
for batch in range(STEPS):
    alone.zero()
    gradient(calm, batch, range(12))
    alone.update(clip_factor(alone.norm() / 3, 0.5) / 3)
far = [float((a - b).detach().abs().max()) for a, b in zip(model.parameters(), calm.parameters())]
state, expected = learner.state(), alone.state()
far += [float((value - expected[name]).abs().max()) for name, value in state.items()]
if comm.world.rank == 0:
    print(json.dumps([list(comm.members), repeated, all(once), max(far)]), flush=True)
comm.depart(0)
"""


def test_a_batch_counts_once_whoever_dies_while_its_sum_is_read(tmp_path):
    (tmp_path / "updates.py").write_text(SCRIPT)
    argv, extra = command(
        find(os.environ),
        [sys.executable, "-m", "mpi4py", str(tmp_path / "updates.py")],
        ranks=5,
        machine=this_machine(os.environ),
        fault_tolerant=True,
    )
    ended = Job(argv, cwd=tmp_path, env={**extra, "OMP_NUM_THREADS": "1"}).end(240)
    lines = ended.out.strip().splitlines()
    assert lines, ended
    members, repeated, once, far = json.loads(lines[-1])
    assert members == [1, 4], ended
    assert repeated == 3, ended
    assert once, ended
    assert far < 1e-12, ended
