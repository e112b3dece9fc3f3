"""Ranks die while all of a node read one sum: each batch counts once, from all its samples."""

import os

import pytest

from hpc_train.launch import find
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.updates import play

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

SCRIPT = """\
import json
import os
import signal
import time

from mpi4py import MPI

from hpc_train.comm import connect
from hpc_train.strategies import Sharding, Tally, allreduce
from tests.jobs import updates

DEATHS = [(1, 0, "updating"), (4, 2, "scaled"), (7, 3, "releasing")]  # batch, rank, instant
STEPS = 9
mine = MPI.COMM_WORLD.rank
allreduce._ONCE_BYTES = 1


def deadly(function, name):
    def call():
        if instant == name:
            time.sleep(0.2)  # the others go on
            os.kill(os.getpid(), signal.SIGKILL)
        return function()

    return call


comm = connect()
model = updates.network()
learner = updates.learner_of(model, "lamb")
learner.step = deadly(learner.step, "updating")
strategy = updates.strategy_of(comm, model, learner, Sharding(False, survives=True))
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
        updates.gradient(model, batch, range(comm.world.rank, updates.SAMPLES, comm.world.size))
        learner.gather()
        weight = updates.WEIGHT if comm.world.rank == 0 else 0.0
        outcome = strategy.finish(learner, Tally(weight=weight))
        assert outcome.updated
        batch += 1
    except MPI.Exception as error:
        assert comm.is_lost(error), error
        comm.shrink()
        assert strategy.recover(is_open=True) is None
        repeated += 1
        places = comm.gather(batch)
        assert len(set(places)) == 1, places
        size = comm.world.size
        strategy.regroup(updates.layout_of(size), updates.scheduler_of(size))

far = updates.distance(model, learner, "lamb", STEPS)
if comm.world.rank == 0:
    print(json.dumps([list(comm.members), repeated, all(once), far]), flush=True)
comm.depart(0)
"""


def test_a_batch_counts_once_whoever_dies_while_its_sum_is_read(tmp_path):
    ended, (members, repeated, once, far) = play(SCRIPT, ranks=5, cwd=tmp_path)
    assert members == [1, 4], ended
    assert repeated == 3, ended
    assert once, ended
    assert far < 1e-12, ended
