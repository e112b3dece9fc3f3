"""torch's own communication between these ranks, which find each other over MPI.

    rank 0     opens a store    --(host, port over MPI)-->    the others connect    a group of all

Nothing is read from the environment, and torch's default process group stays the user's own. A rank
that dies leaves the others waiting in NCCL for ever: who waits asks MPI every now and then, and
`Comm.revoke` aborts the group, which ends the waiting of all.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from hpc_train.world import on_coordinator

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

_MEET_SECONDS = 60
_POLL_SECONDS = 2e-5
_NEWS_SECONDS = 0.05  # between two questions to MPI
# by torch's own rules an error would end the process, and not only the group
_NCCL_SETTINGS = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_ENABLE_MONITORING": "0"}


class FabricError(Exception):
    """Ranks do not reach each other any more by torch's communication."""


class Fabric:
    """A process group of all ranks of a `Comm`; collective to make.

    Args:
        comm: the ranks.
        backend: "nccl", or "gloo", which sums on the CPU.

    Raises:
        RuntimeError: on every rank, if they do not find each other, with the reason.
    """

    def __init__(self, comm: Comm, backend: str) -> None:
        self._comm = comm
        self._is_through = False
        problem = ""
        try:
            store = open_store(comm)
            self._group = _group(backend, store, comm.world.rank, comm.world.size)
        except (RuntimeError, OSError) as error:
            problem = str(error).splitlines()[0]
        problems = [one for one in comm.gather(problem) if one]
        if problems:
            raise RuntimeError(problems[0])
        atexit.register(self.abort)  # a group that is still there when Python ends may hang it

    def sum(self, buffer: torch.Tensor) -> Any:
        """Begin to sum a contiguous tensor over all ranks, in place; what `wait` waits for.

        Raises:
            FabricError: if ranks do not reach each other.
        """
        try:
            return self._group.allreduce([buffer])
        except RuntimeError as error:
            raise FabricError(str(error).splitlines()[0]) from error

    def wait(self, work: Any) -> None:
        """Return once a sum is through.

        Raises:
            FabricError: if it failed, or MPI knows of a rank that died.
        """
        look = time.monotonic() + _NEWS_SECONDS
        try:
            while not work.is_completed():
                time.sleep(_POLL_SECONDS)
                if time.monotonic() > look:
                    if self._comm.has_news():
                        raise FabricError("a rank was lost")
                    look = time.monotonic() + _NEWS_SECONDS
            work.wait()
        except RuntimeError as error:
            raise FabricError(str(error).splitlines()[0]) from error
        if self._is_through:  # an operation that was aborted may say that it is complete
            raise FabricError("the group was aborted")

    def abort(self) -> None:
        """Let whatever goes on fail, on this rank; not collective."""
        atexit.unregister(self.abort)
        if not self._is_through:
            self._is_through = True
            self._group.abort()

    def close(self) -> None:
        """Let go of the others; collective."""
        atexit.unregister(self.abort)
        if not self._is_through:
            self._is_through = True
            self._group.shutdown()


def open_store(comm: Comm) -> Store:
    """A store on rank 0 that all ranks are connected to; collective.

    Raises:
        RuntimeError: on a rank that cannot connect to it.
    """
    world = comm.world
    one_node = world.num_nodes == 1
    if one_node:
        # the loopback device is the fastest there is, and needs no name service
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    host = "127.0.0.1" if one_node else socket.gethostname()
    patience = timedelta(seconds=_MEET_SECONDS)
    served: list[TCPStore] = []

    def serve() -> list[object]:
        store = TCPStore(host, 0, world.size, True, patience, wait_for_workers=False)
        served.append(store)
        return [host, store.port]

    address, port = on_coordinator(comm, serve)
    return served[0] if served else TCPStore(address, port, world.size, False, patience)


def _group(backend: str, store: Store, rank: int, size: int) -> Any:
    if backend == "gloo":
        return dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=_MEET_SECONDS))
    for name, value in _NCCL_SETTINGS.items():
        os.environ.setdefault(name, value)
    return dist.ProcessGroupNCCL(store, rank, size, dist.ProcessGroupNCCL.Options())
