"""Messages of JSON between single ranks, sent without waiting and found by looking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.comm import failures
from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 1


class Mailbox:
    """What others sent to this rank, in the order of arrival; of one sender, as it was sent.

    Args:
        mpi: the module mpi4py.MPI.
        communicator: for these messages alone.
    """

    def __init__(self, mpi: Any, communicator: MPI.Intracomm) -> None:
        self._mpi = mpi
        self._communicator = communicator
        self._sent: list[tuple[MPI.Request, NDArray[np.uint8]]] = []
        self._gone: frozenset[int] = frozenset()

    def post(self, rank: int, message: Json) -> None:
        """Send a message; what a rank that died would have got is lost with it."""
        self._forget()
        buffer = np.frombuffer(json.dumps(message).encode(), np.uint8)
        try:
            self._sent.append((self._communicator.Isend(buffer, rank, _TAG), buffer))
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise

    def take(self) -> tuple[int, Json] | None:
        """The next message and its sender; None if there is none now."""
        status = self._mpi.Status()
        try:
            found = self._communicator.Iprobe(self._mpi.ANY_SOURCE, _TAG, status)
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise
            if not self.revoked:
                self._look_for_the_dead()
            return None
        if not found:
            return None
        buffer = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        self._communicator.Recv(buffer, status.Get_source(), _TAG)
        return status.Get_source(), json.loads(buffer.tobytes())

    @property
    def gone(self) -> frozenset[int]:
        """The ranks that died, as far as is known here."""
        return self._gone

    @property
    def revoked(self) -> bool:
        """Whether somebody is about to shrink, so that no message will come any more."""
        return bool(self._communicator.Is_revoked())

    def drain(self) -> None:
        """Return when all that was sent is on its way."""
        for request, _ in self._sent:
            request.Wait()
        self._sent.clear()

    def _forget(self) -> None:
        self._sent = [(request, held) for request, held in self._sent if not self._arrived(request)]

    def _arrived(self, request: MPI.Request) -> bool:
        try:
            return bool(request.Test())
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise
            return True

    def _look_for_the_dead(self) -> None:
        """Learn who died, and let messages of the others be found again."""
        box: Any = self._communicator
        box.Ack_failed()
        dead = box.Get_failed()
        ranks = self._mpi.Group.Translate_ranks(dead, list(range(dead.Get_size())), box.Get_group())
        self._gone = frozenset(int(rank) for rank in ranks)
