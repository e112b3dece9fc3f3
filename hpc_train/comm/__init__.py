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
from hpc_train.comm.counter import Counter, open_counter
from hpc_train.comm.delegation import Delegation, delegation
from hpc_train.comm.fabric import Fabric, FabricError, open_store
from hpc_train.comm.hierarchical import hierarchical
from hpc_train.comm.native import DTYPES as NATIVE_DTYPES
from hpc_train.comm.native import NativeSum
from hpc_train.comm.nccl import FabricSum, nccl
from hpc_train.comm.once import SumOnce, sum_once
from hpc_train.comm.operation import Nothing, OnDevice, Operation
from hpc_train.comm.post import Post
from hpc_train.comm.ring import BETWEEN_NODES, IN_NODE, RingSum
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
    "Counter",
    "Delegation",
    "Fabric",
    "FabricError",
    "FabricSum",
    "Matrix",
    "Operation",
    "Post",
    "SumOnce",
    "Terms",
    "compressed",
    "connect",
    "delegation",
    "duplicate",
    "explain",
    "lets_threads",
    "open_counter",
    "open_store",
    "prepare",
    "sum_once",
]


def _native(comm: Comm, buffer: torch.Tensor) -> Operation | None:
    return NativeSum(comm, buffer) if buffer.dtype in NATIVE_DTYPES else None


def _ring(comm: Comm, buffer: torch.Tensor) -> Operation:
    is_far = comm.world.num_nodes > 1
    return RingSum(comm.data, buffer, BETWEEN_NODES if is_far else IN_NODE)


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
    "nccl": nccl,
}


def prepare(collective: str, comm: Comm, buffer: torch.Tensor) -> Operation:
    """An operation that sums `buffer` over all ranks in place, as often as it is launched.

    Collective: all ranks prepare the same, and launch in the same order. A collective that cannot
    have what it needs (a full /dev/shm) warns and is replaced by MPI's own or a ring.

    Args:
        collective: a name in `COLLECTIVES`.
        comm: the connected ranks.
        buffer: contiguous, shape (n,), of a type in `arithmetic.DTYPES` (`native`: float32 and
            float64), the same on every rank; in memory of `comm.allocate` it is summed fastest. On
            GPUs it is summed by NCCL, or by way of the host, by the collective there.

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
    if collective in ("auto", "nccl"):
        if (by_nccl := nccl(comm, buffer)) is not None:
            return by_nccl
        if collective == "nccl":
            raise UsageError(
                "nccl needs a GPU of its own for each rank, and a torch that has it",
                where="comm.collective",
                hint='set comm.collective = "auto"',
            )
    if buffer.device.type != "cpu":
        host = torch.empty_like(buffer, device="cpu", pin_memory=True)
        return OnDevice(prepare(collective, comm, host), buffer, host)
    made = COLLECTIVES[collective](comm, buffer)
    return made or _native(comm, buffer) or _ring(comm, buffer)
