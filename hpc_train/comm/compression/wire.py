"""How parties that compress hear of each other: three exchanges of flat arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mpi4py import MPI

Array = NDArray[Any]


class Wire(Protocol):
    """Exchanges among parties; every one of them calls the same, with arrays of equal size.

    Attributes:
        rank: this party, in [0, size).
        size: how many there are.
    """

    rank: int
    size: int

    def sum(self, values: Array) -> None:
        """Replace `values`, shape (n,), by their sum over all parties; float32 or float64."""

    def gather(self, values: Array) -> Array:
        """The values of all parties, shape (n,) each, in their order, shape (size, n)."""

    def swap(self, values: Array) -> Array:
        """Row p of `values`, shape (size, n), goes to party p; gives what came, in their order."""


class Alone:
    """One party."""

    rank = 0
    size = 1

    def sum(self, values: Array) -> None:
        """Nothing is to be added."""

    def gather(self, values: Array) -> Array:
        """Its own."""
        return values[None]

    def swap(self, values: Array) -> Array:
        """Its own."""
        return values


class MpiWire:
    """The ranks of a communicator as parties.

    Args:
        mpi: the module mpi4py.MPI.
        communicator: nothing else may travel on it during an exchange.
    """

    def __init__(self, mpi: Any, communicator: MPI.Comm) -> None:
        self.rank = communicator.Get_rank()
        self.size = communicator.Get_size()
        self._communicator = communicator
        self._in_place = mpi.IN_PLACE
        self._buffers: dict[tuple[str, Any, int], Array] = {}

    def sum(self, values: Array) -> None:
        """MPI_Allreduce in place."""
        if values.size:
            self._communicator.Allreduce(self._in_place, values)

    def gather(self, values: Array) -> Array:
        """MPI_Allgather; the result is valid until the next call."""
        found = self._kept("gather", values.dtype, values.size)
        if values.size:
            self._communicator.Allgather(values, found)
        return found

    def swap(self, values: Array) -> Array:
        """MPI_Alltoall; the result is valid until the next call."""
        found = self._kept("swap", values.dtype, values.shape[1])
        if values.size:
            self._communicator.Alltoall(values, found)
        return found

    def _kept(self, what: str, dtype: Any, size: int) -> Array:
        """A buffer that is made once: fresh memory costs page faults."""
        key = (what, dtype, size)
        if key not in self._buffers:
            self._buffers[key] = np.empty((self.size, size), dtype)
        return self._buffers[key]
