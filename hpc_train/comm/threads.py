"""Communicators for another thread: the same ranks once more.

Messages of two threads on one communicator could be mistaken for each other; with communicators of
its own, a thread waits for the threads of its kind on other ranks alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_train.errors import SetupError

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm


def duplicate(comm: Comm) -> Comm:
    """The same ranks with communicators of their own, for another thread; collective.

    Both know the memory that `allocate` gives. `comm.revoke` wakes up those who wait in either.
    Once ranks have left or joined, the duplicate is of no use any more.

    Raises:
        SetupError: on every rank, if this MPI does not let several threads use it.
    """
    need_threads(comm)
    made = type(comm)(comm._mpi, comm._base, comm._key)
    made.node.know(comm.node)
    made.choices = comm.choices
    comm.duplicates.append(made)
    return made


def lets_threads(comm: Comm) -> bool:
    """Whether this MPI lets several threads use it at once, on all ranks; collective."""
    mpi = comm._mpi
    return bool(min(comm.gather(mpi.Query_thread())) >= mpi.THREAD_MULTIPLE)


def need_threads(comm: Comm) -> None:
    """Check it.

    Raises:
        SetupError: on every rank.
    """
    if not lets_threads(comm):
        raise SetupError(
            "this MPI lets one thread alone use it (MPI_THREAD_MULTIPLE is needed)",
            hint="use an MPI built with support for threads, or what needs none: "
            'strategy.name = "allreduce" with comm.overlap = false',
        )
