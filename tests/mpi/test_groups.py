"""Groups of ranks that the others need not know of, and messages between single ranks."""

import time

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.comm import connect
from tests.mpi.agree import agree


@pytest.mark.mpi
def test_groups_work_side_by_side_and_are_closed():
    comm = connect()
    rank, size = comm.world.rank, comm.world.size
    for number in range(3):
        cut = 1 + number % max(1, size - 1) if size > 1 else 1
        ranks = list(range(cut)) if rank < cut else list(range(cut, size))
        group = comm.group(ranks, number)
        total = group.sum(np.array([float(rank)]))[0]
        agree(total == sum(ranks), total)
        agree(group.gather(rank) == ranks)
        agree(group.world.size == len(ranks))
        group.close()
        agree(group.communicators == [])


@pytest.mark.mpi(min_size=2)
def test_a_message_is_found_by_looking_and_in_order():
    comm = connect()
    box = comm.mailbox()
    rank, size = comm.world.rank, comm.world.size
    if rank:
        for number in range(3):
            box.post(0, {"from": rank, "number": number, "text": "ü" * 1000})
    found = []
    deadline = time.monotonic() + 30
    while rank == 0 and len(found) < 3 * (size - 1) and time.monotonic() < deadline:
        message = box.take()
        if message is not None:
            found.append((message[0], message[1]["number"]))
    box.drain()
    MPI.COMM_WORLD.Barrier()
    agree(box.take() is None)
    for other in range(1, size):
        mine = [number for sender, number in found if sender == other]
        agree(rank != 0 or mine == [0, 1, 2], found)
