"""Communication between ranks: the only home of mpi4py.

Importing this package does not start MPI; `connect()` does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpc_train.comm.communicator import Comm, connect
from hpc_train.comm.native import NativeSum
from hpc_train.comm.operation import Operation
from hpc_train.errors import UsageError, unknown

__all__ = ["COLLECTIVES", "Comm", "Operation", "connect", "prepare"]

# name -> what makes an operation that sums a buffer over all ranks, in place
COLLECTIVES: dict[str, Callable[[Comm, torch.Tensor], Operation]] = {"native": NativeSum}


def prepare(collective: str, comm: Comm, buffer: torch.Tensor) -> Operation:
    """An operation that sums `buffer` over all ranks in place, as often as it is launched.

    Args:
        collective: a name in `COLLECTIVES`.
        comm: the connected ranks.
        buffer: contiguous, shape (n,), float32 or float64, the same on every rank.
    """
    if collective not in COLLECTIVES:
        raise UsageError(unknown("collective", collective, COLLECTIVES))
    return COLLECTIVES[collective](comm, buffer)
