"""Ranks are killed at every instant of an update of slices; the others finish it."""

import json
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
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from mpi4py import MPI

from hpc_train.comm import connect, gate
from hpc_train.quota import Quota
from hpc_train.strategies import Sharding, Tally, shards
from hpc_train.strategies.journal import Slot
from tests.jobs import updates

DEATHS = json.loads(sys.argv[1])  # [rank, batch, instant]
SHORT = json.loads(sys.argv[2])  # ranks that have less than a core
shards._CACHE_BYTES, shards._STEP_BYTES = 2**15, 2**12  # many small blocks
STEPS = 3 * len(DEATHS) + 2
mine = MPI.COMM_WORLD.rank


def die():
    os.kill(os.getpid(), signal.SIGKILL)


gate.cpu_quota = lambda: Quota(0.3, f"/{mine}") if mine in SHORT else None
comm = connect()
model = updates.network()
learner = updates.learner_of(model, "adamw")
strategy = updates.strategy_of(comm, model, learner, Sharding(True, survives=True))
assert learner.arenas[0].shared and strategy._journal is not None
assert (strategy._delegation is not None) == bool(SHORT)
batch, calls, instant, kernel = 0, 0, "", learner.kind.kernel
save, begin, close = Slot.save, Slot.begin, Slot.close


def deadly_kernel(weight, grad, state, group):
    global calls
    calls += 1
    if instant == "half overwritten" and calls == 3:
        weight[: len(weight) // 2] = torch.nan
        state["exp_avg"][:7] = torch.nan
        die()
    kernel(weight, grad, state, group)
    if instant == "overwritten" and calls == 3:
        die()


def deadly_save(self, copies):
    if instant == "half saved" and calls == 2:
        np.copyto(*copies[0])
        die()
    save(self, copies)
    if instant == "saved" and calls == 2:
        die()


def deadly_begin(self, update, vector):
    if instant == "not yet begun":
        time.sleep(0.2)  # the others begin
        die()
    begin(self, update, vector)


def deadly_close(self):
    close(self)
    if instant in ("closed", "alone in knowing") and calls == 3:
        time.sleep(0.2)
        die()


def deadly_hand_in(hand_in, vector, **more):
    if instant == "not handed in":
        die()
    found = hand_in(vector, **more)
    if instant == "handed in":
        die()
    if late and found is not None:
        time.sleep(0.3)  # until MPI knows who has died
    return found


def deadly_delegation():
    # a new one for those that are left
    delegation = strategy._delegation
    if delegation is not None:
        delegation.hand_in = partial(deadly_hand_in, delegation.hand_in)


def others_do_not_hear(total, vector):
    # the sum arrives at the victim alone, which begins to update
    while strategy._journal.slots[comm.members.index(victim)].done < 3:
        time.sleep(0.01)
    comm.node.barrier()


Slot.save, Slot.begin, Slot.close = deadly_save, deadly_begin, deadly_close
learner.kind = replace(learner.kind, kernel=deadly_kernel)
deadly_delegation()
agreed, ended_by_others = strategy._agreed, 0
while batch < STEPS:
    late = any(b == batch and i == "handed in" for _, b, i in DEATHS)
    instant, victim = next(([i, r] for r, b, i in DEATHS if b == batch), ["", -1])
    is_mute = instant == "alone in knowing" and victim != mine and victim in comm.members
    strategy._agreed = others_do_not_hear if is_mute else agreed
    if mine != victim:
        instant = ""
    calls = 0
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
        strategy._agreed = agreed
        ended = strategy.recover(is_open=True)
        batch += ended is not None
        ended_by_others += ended is not None
        places = comm.gather(batch)
        assert len(set(places)) == 1, places
        size = comm.world.size
        strategy.regroup(updates.layout_of(size), updates.scheduler_of(size))
        deadly_delegation()

far = updates.distance(model, learner, "adamw", STEPS)
if comm.world.rank == 0:
    print(json.dumps([list(comm.members), ended_by_others, far]), flush=True)
comm.depart(0)
"""


def names(value):
    is_story = isinstance(value, list) and isinstance(value[0], tuple)
    return "+".join(str(part[-1]) for part in value) if is_story else ""


@pytest.mark.parametrize(
    ("deaths", "left"),
    [
        ([(1, 1, "half saved"), (0, 4, "half overwritten"), (3, 7, "closed")], [2]),
        ([(2, 1, "overwritten"), (0, 4, "alone in knowing"), (1, 7, "not yet begun")], [3]),
        ([(0, 1, "saved"), (3, 4, "half overwritten")], [1, 2]),
    ],
    ids=names,
)
def test_an_update_is_whole_or_not_at_all(deaths, left, tmp_path):
    story = play(SCRIPT, json.dumps(deaths), "[]", ranks=4, cwd=tmp_path)
    ended, (members, ended_by_others, far) = story
    assert members == left, ended
    assert ended_by_others == len(deaths), ended
    assert far < 1e-12, ended


@pytest.mark.parametrize(
    ("short", "deaths", "left", "finished"),
    [
        ([1, 3], [(0, 1, "half saved"), (2, 4, "half overwritten"), (3, 7, "closed")], [1], 3),
        ([1], [(2, 1, "overwritten"), (0, 4, "alone in knowing"), (3, 7, "closed")], [1], 3),
        ([0, 1, 2], [(3, 1, "half overwritten"), (1, 4, "saved")], [0, 2], 2),
        ([1, 2], [(1, 1, "not handed in"), (2, 4, "handed in")], [0, 3], 0),
        ([0, 2], [(0, 1, "handed in"), (1, 4, "half overwritten")], [2, 3], 1),
        ([3], [(0, 1, "handed in"), (1, 4, "not yet begun")], [2, 3], 1),
    ],
    ids=names,
)
def test_nor_is_that_of_ranks_which_make_it_for_others(short, deaths, left, finished, tmp_path):
    story = play(SCRIPT, json.dumps(deaths), json.dumps(short), ranks=4, cwd=tmp_path)
    ended, (members, ended_by_others, far) = story
    assert members == left, ended
    # who dies when it has handed in is missed in the next step, of which nothing is done
    assert ended_by_others == finished, ended
    assert far < 1e-12, ended
