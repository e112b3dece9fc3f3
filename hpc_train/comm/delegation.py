"""Ranks that are short of CPU time hand in what they have; the others make the sums.

    leader     compute ...... | nap .... all | sum | update | met, tell | compute
    delegate   compute .... | nap ....... total | sum | update | met     | compute
    short      compute ............ | hand in  - - - - - - - - - -  hear | compute

A rank under a quota that computes to the last has, as a rule, spent more of it than is due: the
kernel looks only when the rank gives up its core, and lets it stand still then. So it sends what
the others need before it first waits, and nobody waits for it again.

The leader is the first delegate. Messages are as long as a tally, and one of each rank in a step.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.comm import failures
from hpc_train.comm.gate import Gate, Seat, own_cpus
from hpc_train.record import operation

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpc_train.comm.communicator import Comm

_IN, _OUT = 1, 2  # tags: to the leader, from it


def delegates_of(seats: Sequence[Seat]) -> list[int]:
    """The ranks that make the sums of others, if any are to do so; nobody where none is short.

    Short is who has a quota of its own of less than a core. There are no delegates on several
    nodes, nor where they would have less than half of the ranks' CPU time.
    """
    own = [own_cpus(seats, rank) for rank in range(len(seats))]
    short = {rank for rank, cpus in enumerate(own) if cpus is not None and cpus < 1}
    sharing = Counter(seat.group for seat in seats)
    power = [min(1.0, one.cpus / sharing[one.group]) if one.cpus > 0 else 1.0 for one in seats]
    able = [rank for rank in range(len(seats)) if rank not in short]
    is_one_node = len({seat.node for seat in seats}) == 1
    is_fair = 2 * sum(power[rank] for rank in able) >= sum(power)
    return able if short and is_one_node and is_fair else []


def delegation(comm: Comm) -> Delegation | None:
    """What ranks leave to others that are short of CPU time; None where none is."""
    delegates = delegates_of(comm.gate.seats)
    if not delegates:
        return None
    return Delegation(comm._mpi, comm.node.communicator, comm.gate, delegates)


class Delegation:
    """Sums of small float64 vectors, shape (n,), which the delegates alone have to wait for.

    Args:
        mpi: the module mpi4py.MPI.
        communicator: the ranks; no other messages between two of them.
        gate: where they wait asleep.
        delegates: ascending, at least one and not all.

    Attributes:
        is_delegate: whether this rank is one.
    """

    def __init__(
        self, mpi: Any, communicator: MPI.Comm, gate: Gate, delegates: Sequence[int]
    ) -> None:
        self._mpi, self._communicator, self._gate = mpi, communicator, gate
        self._rank, size = communicator.Get_rank(), communicator.Get_size()
        self._leader, *self._delegates = delegates
        self._others = [rank for rank in range(size) if rank != self._leader]
        self._short = [rank for rank in range(size) if rank not in delegates]
        self._came = 0.0  # when this rank last came to hand in
        self._sent: list[tuple[MPI.Request, NDArray[np.float64]]] = []
        self.is_delegate = self._rank in delegates

    def shares(self, counts: Sequence[int]) -> tuple[int, ...]:
        """How long the slice of each rank is: as its part of `counts`, but 0 where it is short."""
        own = [0 if rank in self._short else count for rank, count in enumerate(counts)]
        if not any(own):
            own = [int(rank not in self._short) for rank in range(len(counts))]
        return tuple(own)

    def hand_in(
        self, vector: NDArray[np.float64], *, is_idle: bool = False
    ) -> NDArray[np.float64] | None:
        """Give this rank's part; on delegates, once all have done so, the sum, shape (n,).

        All that ranks wrote to shared memory before is there then. None at once on the others,
        which shall `hear`.

        Args:
            vector: shape (n,), not to be changed afterwards.
            is_idle: whether this rank had nothing else to do.
        """
        operation("assemble")
        if self._rank == self._leader:
            parts = np.empty((len(self._others) + 1, vector.size))
            parts[self._leader] = vector
            requests = [self._communicator.Irecv(parts[one], one, _IN) for one in self._others]
            self._gate.wait(_All(requests), is_idle=is_idle)
            total: NDArray[np.float64] = parts.sum(axis=0)
            for one in self._delegates:
                self._send(total, one, _OUT)
            return total
        self._came = time.perf_counter()
        self._send(vector, self._leader, _IN)
        return self._receive(vector.size, is_idle=is_idle) if self.is_delegate else None

    def hear(self, size: int, *, is_idle: bool = False) -> NDArray[np.float64]:
        """What the delegates `tell`, shape (size,); asleep until then.

        That this rank was late to hear it, since its quota was spent, is no waiting: it will begin
        late, too, and the gate's `late_seconds` say by how much.
        """
        found = self._receive(size + 1, is_idle=is_idle)
        when, now = float(found[-1]), time.perf_counter()
        if self._came <= when <= now and not is_idle:  # else clocks are not the same
            self._gate.late_seconds += now - when
        return found[:-1]

    def _receive(self, size: int, *, is_idle: bool) -> NDArray[np.float64]:
        """What the leader says next, shape (size,)."""
        found = np.empty(size)
        request = self._communicator.Irecv(found, self._leader, _OUT)
        self._gate.wait(request, is_idle=is_idle)
        return found

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over the delegates, float64, the same on all of them; they alone call."""
        total = np.array(values, np.float64)
        if not self._delegates:
            return total
        if self._rank != self._leader:
            self._communicator.Send(total, self._leader, _IN)
            self._communicator.Recv(total, self._leader, _OUT)
            return total
        part = np.empty_like(total)
        for one in self._delegates:
            self._communicator.Recv(part, one, _IN)
            total += part
        for one in self._delegates:
            self._communicator.Send(total, one, _OUT)
        return total

    def tell(self, vector: NDArray[np.float64]) -> None:
        """Say what came of it to those that are short; the delegates call, the leader does it.

        Who died meanwhile is missed when ranks next hand in, by all of them in the same step.
        """
        if self._rank == self._leader:
            told = np.append(vector, time.perf_counter())
            for one in self._short:
                try:
                    self._send(told, one, _OUT)
                except self._mpi.Exception as error:
                    if not failures.is_failure(self._mpi, error):
                        raise

    def _send(self, vector: NDArray[np.float64], rank: int, tag: int) -> None:
        """Send without waiting; what has arrived is forgotten."""
        sent, self._sent = self._sent, []
        request = self._communicator.Isend(vector, rank, tag)
        self._sent = [(request, vector)]
        self._sent += [(request, held) for request, held in sent if not request.Test()]


class _All:
    """Several requests as one; one after the other is asked, so each tells its own error."""

    def __init__(self, requests: Sequence[MPI.Request]) -> None:
        self._requests = list(requests)

    def Test(self) -> bool:  # noqa: N802
        while self._requests and self._requests[-1].Test():
            self._requests.pop()
        return not self._requests

    def Wait(self) -> bool:  # noqa: N802
        for request in self._requests:
            request.Wait()
        return True
