"""The ranks of this job: who they are, agreement on small things, and the way out."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import SetupError
from hpc_train.record import phase
from hpc_train.world import Json, World

if TYPE_CHECKING:
    from mpi4py import MPI

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
    """

    def __init__(self, mpi: Any, base: MPI.Intracomm) -> None:
        self._mpi = mpi
        self._base = base
        self._control = base.Dup()
        self._data = base.Dup()
        self._rank = base.Get_rank()
        self._size = base.Get_size()
        self.hosts = [str(key) for key in self.gather(host_key())]
        self.world = World.from_hosts(self.hosts, self._rank)

    @property
    def communicators(self) -> list[MPI.Intracomm]:
        """Every communicator of this object: who sees a failure revokes them all."""
        return [self._control, self._data]

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The element-wise sum of `values` over all ranks; float64, any shape."""
        total = np.array(values, np.float64)
        self._control.Allreduce(self._mpi.IN_PLACE, total)
        return total

    def sum_in_place(self, values: NDArray[Any]) -> None:
        """Sum a contiguous array of gradients over all ranks, in place."""
        self._data.Allreduce(self._mpi.IN_PLACE, values)

    def spread(self, values: NDArray[Any], root: int = 0) -> None:
        """Overwrite a contiguous array with the root's, on every rank."""
        flat = values.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, 2**30):
            self._data.Bcast(flat[start : start + 2**30], root)

    def gather(self, value: Json) -> list[Json]:
        """Every rank's value, in the order of ranks, on every rank."""
        mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = np.empty(self._size, np.int64)
        self._control.Allgather(np.array([mine.size]), sizes)
        everyone = np.empty(int(sizes.sum()), np.uint8)
        self._control.Allgatherv(mine, (everyone, sizes.tolist()))
        ends = np.cumsum(sizes)
        return [
            json.loads(everyone[end - size : end].tobytes())
            for size, end in zip(sizes, ends, strict=True)
        ]

    def broadcast(self, value: Json, root: int = 0) -> Json:
        """The root's value, on every rank."""
        text = json.dumps(value).encode() if self._rank == root else b""
        size = np.array([len(text)], np.int64)
        self._control.Bcast(size, root)
        buffer = np.frombuffer(text, np.uint8) if text else np.empty(int(size[0]), np.uint8)
        self._control.Bcast(buffer, root)
        return json.loads(buffer.tobytes())

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
