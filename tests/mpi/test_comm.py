"""Communication: agreement on JSON, barriers with a deadline, on any number of ranks."""

import time

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.comm import connect
from hpc_train.comm.gate import Gate, Seat
from hpc_train.comm.yielding import yielding_of
from tests.mpi.agree import agree, agree_raises

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def comm():
    return connect()


def test_gather_and_broadcast_carry_any_json(comm):
    rank, size = comm.world.rank, comm.world.size
    mine = {"rank": rank, "text": "é" * rank, "none": None, "list": [1.5, True, {}]}
    everyone = comm.gather(mine)
    agree([entry["rank"] for entry in everyone] == list(range(size)), everyone)
    agree(everyone[rank] == mine)
    for root in range(size):
        agree(comm.broadcast({"from": rank}, root) == {"from": root})


def test_spread_gives_the_bytes_of_the_root(comm):
    array = np.full((3, 5), float(comm.world.rank))
    comm.spread(array, comm.world.size - 1)
    agree((array == comm.world.size - 1).all(), array)


def test_the_world_is_what_mpi_says(comm):
    agree(comm.world.size == len(comm.hosts))
    agree(comm.world.num_nodes == len(set(comm.hosts)))
    agree(comm.world.local_rank == comm.world.rank)


def test_a_barrier_waits_for_all_and_not_for_ever(comm):
    comm.barrier(30)
    if comm.world.size == 1:
        return
    # a communicator of its own: the unfinished barrier must not meet later ones
    from mpi4py import MPI

    from hpc_train.comm import Comm

    apart = Comm(MPI, MPI.COMM_WORLD)
    if comm.world.rank == 0:
        error = None
        try:
            apart.barrier(0.2)
        except TimeoutError as raised:
            error = raised
        late = "not all ranks" in str(error)
        comm.broadcast(late)
    else:
        late = comm.broadcast(None)
        apart.communicators[0].Ibarrier().Test()
    agree(late)


@pytest.mark.mpi(min_size=2)
def test_an_error_of_one_rank_is_raised_on_all(comm):
    from hpc_train.errors import DataError
    from hpc_train.world import RankError, together

    def fail_on_the_last():
        if comm.world.rank == comm.world.size - 1:
            raise DataError("broken shard")

    error = agree_raises(RankError, lambda: together(comm, fail_on_the_last))
    agree(error.lines()[0].startswith(f"rank {comm.world.size - 1} on "), error.lines())


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("tight", [False, True])
def test_a_gate_holds_ranks_back_where_they_are_short_of_cores_or_idle(comm, tight, idle):
    """A rank that waits asleep passes when all are there; clocks of one machine agree."""
    communicator = comm.data.Dup()
    seat = Seat("here", range(1 if tight else 64))
    yielding = yielding_of(MPI.__file__)
    gate = Gate(communicator, [seat] * max(2, comm.world.size), yielding)
    counts = [1] * (comm.world.size - 1) + [int(not idle)]
    for last in range(comm.world.size):
        comm.meet()
        if comm.world.rank == last:
            time.sleep(0.02)
        came = time.monotonic()
        gate.pass_together(counts)
        passed = time.monotonic()
        everyone = comm.gather([came, passed])
        together = max(one for one, _ in everyone) <= min(one for _, one in everyone)
        agree(together or not (tight or idle), everyone)
    gate.leave()
    yielding.set_yielding(comm.gate.is_tight)
    communicator.Free()
