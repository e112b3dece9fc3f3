"""Communication between ranks: the only home of mpi4py.

Importing this package does not start MPI; `connect()` does.
"""

from __future__ import annotations

import torch

from hpc_train.comm.arithmetic import DTYPES
from hpc_train.comm.auto import Builder, auto, explain
from hpc_train.comm.background import Background
from hpc_train.comm.communicator import Comm
from hpc_train.comm.compressed import CompressedSum, compressed
from hpc_train.comm.compression import COMPRESSORS, Matrix, Terms
from hpc_train.comm.hierarchical import hierarchical
from hpc_train.comm.native import DTYPES as NATIVE_DTYPES
from hpc_train.comm.native import NativeSum
from hpc_train.comm.operation import Nothing, OnDevice, Operation
from hpc_train.comm.post import Post
from hpc_train.comm.ring import RingSum
from hpc_train.comm.shared import shared
from hpc_train.comm.start import connect
from hpc_train.comm.threads import duplicate, lets_threads
from hpc_train.errors import UsageError, unknown

__all__ = [
    "COLLECTIVES",
    "COMPRESSORS",
    "Background",
    "Comm",
    "CompressedSum",
    "Matrix",
    "Operation",
    "Post",
    "Terms",
    "compressed",
    "connect",
    "duplicate",
    "explain",
    "lets_threads",
    "prepare",
]


def _native(comm: Comm, buffer: torch.Tensor) -> Operation | None:
    return NativeSum(comm, buffer) if buffer.dtype in NATIVE_DTYPES else None


def _ring(comm: Comm, buffer: torch.Tensor) -> Operation:
    return RingSum(comm.data, buffer)


def _auto(comm: Comm, buffer: torch.Tensor) -> Operation:
    names = ["native", "ring"] if buffer.dtype in NATIVE_DTYPES else ["ring"]
    if comm.world.num_nodes == 1:
        names.append("shared")
    elif comm.world.num_nodes < comm.world.size:
        names.append("hierarchical")
    return auto(comm, buffer, {name: COLLECTIVES[name] for name in names})


# name -> what makes an operation that sums a buffer over all ranks, in place; None if it cannot
COLLECTIVES: dict[str, Builder] = {
    "auto": _auto,
    "native": _native,
    "ring": _ring,
    "shared": shared,
    "hierarchical": hierarchical,
}


def prepare(collective: str, comm: Comm, buffer: torch.Tensor) -> Operation:
    """An operation that sums `buffer` over all ranks in place, as often as it is launched.

    Collective: all ranks prepare the same, and launch in the same order. A collective that cannot
    have what it needs (a full /dev/shm) warns and is replaced by MPI's own or a ring.

    Args:
        collective: a name in `COLLECTIVES`.
        comm: the connected ranks.
        buffer: contiguous, shape (n,), of a type in `arithmetic.DTYPES` (`native`: float32 and
            float64), the same on every rank; in memory of `comm.allocate` it is summed fastest.

    Raises:
        UsageError: on every rank, if there is no such collective, or none for that type or place.
    """
    if collective not in COLLECTIVES:
        raise UsageError(unknown("collective", collective, COLLECTIVES))
    known = NATIVE_DTYPES if collective == "native" else DTYPES
    if buffer.dtype not in known:
        raise UsageError(
            f"{collective} sums {', '.join(map(str, known))} (buffer: {buffer.dtype})",
            where="comm.collective",
        )
    if not buffer.is_contiguous() or buffer.dim() != 1:
        raise ValueError(f"buffer must be contiguous and flat (shape: {tuple(buffer.shape)})")
    if comm.world.size == 1 or buffer.numel() == 0:
        return Nothing()
    if buffer.device.type != "cpu":
        host = torch.empty_like(buffer, device="cpu", pin_memory=True)
        return OnDevice(prepare(collective, comm, host), buffer, host)
    made = COLLECTIVES[collective](comm, buffer)
    return made or _native(comm, buffer) or _ring(comm, buffer)
