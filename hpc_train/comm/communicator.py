"""The ranks of this job: who they are, agreement on small things, and the way out."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import letters
from hpc_train.comm.node import Node
from hpc_train.errors import SetupError
from hpc_train.record import phase
from hpc_train.world import Json, World

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpc_train.comm.auto import Choice

_POLL_SECONDS = 0.002


def host_key() -> str:
    """What tells this node from others: its host name and the identity of its last boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


class Comm:
    """The ranks of `MPI_COMM_WORLD` (or of another communicator), as a `world.Group`.

    Agreement ("control") and gradients ("data") travel on communicators of their own, so that
    they can never be mistaken for each other.

    Args:
        mpi: the module mpi4py.MPI.
        base: the ranks; it is duplicated.
        key: what tells the node of this rank from others, by default host name and boot.

    Attributes:
        hosts: the keys of all ranks.
        world: who and where this rank is.
        node: the ranks of this rank's node.
        choices: what `auto` found, by size class, type, and whether memory is shared.
    """

    def __init__(self, mpi: Any, base: MPI.Intracomm, key: str | None = None) -> None:
        self._mpi = mpi
        self._base = base
        self._control = base.Dup()
        self._data = base.Dup()
        self._rank = base.Get_rank()
        self._size = base.Get_size()
        self.hosts = [str(one) for one in self.gather(key or host_key())]
        self.world = World.from_hosts(self.hosts, self._rank)
        self.node = Node(base.Split(self.world.node, self._rank))
        self._lanes: MPI.Comm | None = None
        self.choices: dict[tuple[int, str, bool], Choice] = {}

    @property
    def communicators(self) -> list[MPI.Comm]:
        """Every communicator of this object: who sees a failure revokes them all."""
        found: list[MPI.Comm] = [self._control, self._data, self.node.communicator]
        return [*found, self._lanes] if self._lanes else found

    @property
    def data(self) -> MPI.Intracomm:
        """The communicator of gradients."""
        return self._data

    def lanes(self) -> MPI.Comm:
        """The ranks of other nodes that have this one's local rank; collective when first called.

        Of a node with more ranks than the smallest one, the surplus ranks get communicators that
        do not reach every node.
        """
        if self._lanes is None:
            self._lanes = self._base.Split(self.world.local_rank, self._rank)
        return self._lanes

    def allocate(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """Zeros of shape (size,) on the CPU, in memory that the node's ranks share if possible.

        Collective: all ranks ask for the same. Where there is no shared memory to be had, or
        nobody to share it with, the memory is private.
        """
        lent = self.node.allocate(size, dtype)
        return torch.zeros(size, dtype=dtype) if lent is None else lent

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The element-wise sum of `values` over all ranks; float64, any shape."""
        total = np.array(values, np.float64)
        self._control.Allreduce(self._mpi.IN_PLACE, total)
        return total

    def sums(self, pieces: Sequence[NDArray[Any]]) -> list[tuple[Any, Any, Any]]:
        """Calls of MPI_Allreduce on contiguous arrays, in place, with all arguments prepared.

        Each is (function, input, output); there are none if there is but one rank. Spelling out
        address, count and type spares mpi4py from looking for them in every call.
        """
        if self._size == 1:
            return []
        kinds = {4: self._mpi.FLOAT, 8: self._mpi.DOUBLE}
        function, in_place = self._data.Allreduce, self._mpi.IN_PLACE
        return [(function, in_place, [one, one.size, kinds[one.itemsize]]) for one in pieces]

    def spread(self, values: NDArray[Any], root: int = 0) -> None:
        """Overwrite a contiguous array with the root's, on every rank."""
        flat = values.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, 2**30):
            self._data.Bcast(flat[start : start + 2**30], root)

    def gather(self, value: Json) -> list[Json]:
        """Every rank's value, in the order of ranks, on every rank."""
        return letters.gather(self._control, value)

    def broadcast(self, value: Json, root: int = 0) -> Json:
        """The root's value, on every rank."""
        return letters.broadcast(self._control, value, root)

    def meet(self) -> None:
        """Return once all ranks have called, as fast as MPI can and however long it takes."""
        self._control.Barrier()

    def barrier(self, seconds: float | None = None) -> None:
        """Return once all ranks have called.

        Raises:
            TimeoutError: after `seconds` without all of them; the job can only be aborted then.
        """
        request = self._control.Ibarrier()
        started = time.monotonic()
        with phase("waiting", operation="barrier"):
            while not request.Test():
                if seconds is not None and time.monotonic() - started > seconds:
                    raise TimeoutError(f"not all ranks reached the barrier in {seconds:g} s")
                time.sleep(_POLL_SECONDS)

    def abort(self, code: int) -> None:
        """End every rank of the job now, with exit code `code`; does not return."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self._size == 1:
            os._exit(code)
        self._mpi.COMM_WORLD.Abort(code)


def connect() -> Comm:
    """Start MPI and meet the other ranks.

    Raises:
        SetupError: if no MPI library can be loaded.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise SetupError(
            f"no MPI library can be loaded: {str(error).splitlines()[0]}",
            hint="pip install 'hpc-train[mpi]', or load the site's MPI (module load openmpi)",
        ) from error
    return Comm(MPI, MPI.COMM_WORLD)
