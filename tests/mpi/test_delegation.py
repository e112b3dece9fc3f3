"""Ranks that are short of CPU time hand in what they have; the others make sums and updates."""

from unittest.mock import patch

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.comm import Comm, delegation, gate
from hpc_train.quota import Quota
from tests.mpi.agree import agree
from tests.mpi.runs import distance
from tests.mpi.test_shards import Trained

pytestmark = pytest.mark.mpi(min_size=2)

WORLD = MPI.COMM_WORLD
SIZE, RANK = WORLD.size, WORLD.rank
# who is short: the first rank, the last one, all but the last one
SHORT = sorted({(0,), (SIZE - 1,), tuple(range(SIZE - 1))})


def limited(short, cpus=0.3):
    """Quotas of less than a core for some ranks."""
    quota = Quota(cpus, f"/{RANK}") if RANK in short else None
    return patch.object(gate, "cpu_quota", lambda: quota)


def trained(short, optimizer="adamw", **more):
    with limited(short):
        made = Trained(True, optimizer, **more)
    assert (made.strategy._delegation is not None) == (0 < len(short) < SIZE)
    return made


def slice_of(one):
    """How many weights this rank updates."""
    (shards,) = one.strategy._shards.values()
    return sum(block.weight.numel() for block in shards._blocks)


@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_update_is_that_of_all_ranks(short, optimizer):
    one, other = Trained(False, optimizer), trained(short, optimizer)
    for number in range(4):
        a, b = one.step(number), other.step(number)
        agree(a.updated and b.updated and abs(a.norm / b.norm - 1) < 1e-12, (a.norm, b.norm))
        agree(a.total.weight == b.total.weight and a.total.counts == b.total.counts)
    agree((slice_of(other) == 0) == (RANK in short), slice_of(other))
    WORLD.barrier()
    agree(distance(other.weights(), one.weights()) < 1e-10)
    here, there = one.state(), other.state()
    agree(max(distance(there[name], here[name]) for name in here) < 1e-10)


@pytest.mark.parametrize("short", SHORT)
def test_delegates_without_samples_make_the_sums_of_the_others(short):
    shares = [int(rank in short) for rank in range(SIZE)]
    one, other = Trained(False, "sgd"), trained(short, "sgd", shares=shares)
    for number in range(3):
        one.step(number)
        other.step(number)
    agree((slice_of(other) == 0) == (RANK in short), slice_of(other))
    WORLD.barrier()
    agree(distance(other.weights(), one.weights()) < 1e-12)


@pytest.mark.parametrize("short", SHORT)
def test_nobody_updates_when_a_number_is_not_finite_or_a_rank_has_failed(short):
    one = trained(short)
    one.step(0)
    WORLD.barrier()
    before = one.weights().copy()
    for victim in range(SIZE):
        outcome = one.step(1, float("nan") if victim == RANK else 1.0)
        agree(not outcome.updated and not outcome.finite)
        for flag in ("failed", "non_finite"):
            outcome = one.step(2, flags={flag} if victim == RANK else ())
            agree(not outcome.updated and outcome.total.flags[flag] == 1)
    agree(np.array_equal(one.weights(), before))
    agree(one.step(4).updated)
    WORLD.barrier()
    agree(not np.array_equal(one.weights(), before))


@pytest.mark.parametrize("short", SHORT)
def test_nobody_waits_for_a_rank_that_has_handed_in(short):
    with limited(short):
        comm = Comm(MPI, WORLD)
    made = delegation(comm)
    ready = WORLD.Dup()
    able = [rank for rank in range(SIZE) if rank not in short]
    agree(made.is_delegate == (RANK in able))
    for turn in range(3):
        vector = np.array([RANK + turn, 1.0, 2.0**RANK])
        total = made.hand_in(vector)
        if RANK in able:
            expected = [sum(range(SIZE)) + SIZE * turn, SIZE, 2.0**SIZE - 1]
            assert total.tolist() == expected, total
            squares = made.sum(np.array([RANK + 1.0]))
            assert squares[0] == sum(able) + len(able), squares
            made.tell(total * 2)
            for one in short:  # it listens only after this
                ready.send(turn, one)
        else:
            assert total is None
            assert all(ready.recv(source=one) == turn for one in able)
            heard = made.hear(3)
            assert heard.tolist() == [
                2 * (sum(range(SIZE)) + SIZE * turn),
                2 * SIZE,
                2**SIZE * 2 - 2,
            ]
    late = comm.gate.take_late_seconds()
    agree((late > 0) == (RANK in short), late)
    agree(comm.gate.take_late_seconds() == 0)


def test_where_nobody_or_everybody_is_short_there_are_no_delegates():
    for short, cpus in (((), 0.3), (range(SIZE), 0.3), ((0,), 1.5)):
        with limited(short, cpus):
            agree(delegation(Comm(MPI, WORLD)) is None, (short, cpus))
    with limited((0,)):
        agree(delegation(Comm(MPI, WORLD, str(RANK))) is None, "nodes")
