"""Letters between two ranks: a small JSON header, and arrays behind it. Nothing waits for ever.

    worker                                   server
      header {"kind": ...}  -- HEADER -->      poll(): who writes, and what
      array 0, array 1 ...  -- ARRAYS -->      receive(source, arrays)

MPI keeps the order of messages between two ranks on one communicator and tag, so what follows a
header belongs to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import CommunicationError
from hpc_train.record import operation
from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI

_HEADER, _ARRAYS = 1, 2
_PIECE_BYTES = 2**30
_SPINS = 200  # polls before the first nap
_NAP_SECONDS = 0.0002


class Post:
    """Sends and receives on a communicator of its own; one thread of a rank polls at a time.

    Others may send meanwhile.

    Args:
        mpi: the module mpi4py.MPI.
        communicator: of which nobody else uses point-to-point messages.
        seconds: how long a letter, or a part of one, may take to arrive, > 0.
        watch: called while something is waited for; it may raise, and the wait ends.
    """

    def __init__(
        self,
        mpi: Any,
        communicator: MPI.Comm,
        seconds: float,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._mpi = mpi
        self._communicator = communicator
        self._seconds = seconds
        self._watch = watch

    def watched(self, watch: Callable[[], None]) -> Post:
        """The same letters, for a thread that watches something else as well."""
        return Post(self._mpi, self._communicator, self._seconds, watch)

    def send(self, to: int, header: Json, arrays: Sequence[NDArray[Any]] = ()) -> None:
        """Send a header and contiguous arrays, which may be used again on return.

        Raises:
            CommunicationError: if rank `to` does not take them in time.
        """
        self.send_all({to: (header, arrays)})

    def send_all(self, letters: Mapping[int, tuple[Json, Sequence[NDArray[Any]]]]) -> None:
        """Send letters to several ranks at once, as `send` does; a header of None is left out."""
        requests: dict[int, list[MPI.Request]] = {}
        for to, (header, arrays) in letters.items():
            parts = [(piece, _ARRAYS) for piece in _pieces(arrays)]
            if header is not None:
                parts.insert(0, (np.frombuffer(json.dumps(header).encode(), np.uint8), _HEADER))
            operation("send", sum(part.nbytes for part, _ in parts), to)
            requests[to] = [self._communicator.Isend(part, to, tag) for part, tag in parts]
        self._finish(requests, "receive")

    def poll(self) -> tuple[int, Json] | None:
        """The next header that has come, and from whom; None if there is none now."""
        status = self._mpi.Status()
        message = self._communicator.Improbe(tag=_HEADER, status=status)
        if message is None:
            return None
        buffer = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        request, source = message.Irecv(buffer), status.Get_source()
        self._wait(request.Test, lambda: f"rank {source} does not send")
        return source, json.loads(buffer.tobytes())

    def wait(self, what: str, seconds: float) -> tuple[int, Json]:
        """The next header, as soon as there is one.

        Args:
            what: who is waited for, for the error.
            seconds: how long.

        Raises:
            CommunicationError: if none comes in time.
        """
        operation("receive")
        found: list[tuple[int, Json]] = []

        def arrived() -> bool:
            letter = self.poll()
            if letter is not None:
                found.append(letter)
            return letter is not None

        self._wait(arrived, lambda: f"no word from {what}", seconds)
        return found[0]

    def receive(self, source: int, arrays: Sequence[NDArray[Any]]) -> None:
        """Overwrite contiguous arrays with those that follow the last header of `source`.

        Raises:
            CommunicationError: if they do not come in time.
        """
        self.receive_all({source: arrays})

    def receive_all(self, arrays: Mapping[int, Sequence[NDArray[Any]]]) -> None:
        """Overwrite contiguous arrays with those of several ranks at once, as `receive` does."""
        requests = {}
        for source, own in arrays.items():
            operation("receive", sum(array.nbytes for array in own), source)
            requests[source] = [self._communicator.Irecv(p, source, _ARRAYS) for p in _pieces(own)]
        self._finish(requests, "send")

    def _finish(self, requests: dict[int, list[MPI.Request]], verb: str) -> None:
        """Return when the requests with each rank are finished."""

        def finished() -> bool:
            for rank in [*requests]:
                if self._mpi.Request.Testall(requests[rank]):
                    del requests[rank]
            return not requests

        self._wait(finished, lambda: f"rank {min(requests)} does not {verb}")

    def _wait(
        self, done: Callable[[], bool], problem: Callable[[], str], seconds: float | None = None
    ) -> None:
        """Poll until `done`, first at once, then with naps."""
        seconds = seconds or self._seconds
        spins, deadline = 0, time.monotonic() + seconds
        while not done():
            self._watch()
            spins += 1
            if spins < _SPINS:
                time.sleep(0)
                continue
            if time.monotonic() > deadline:
                raise CommunicationError(
                    f"{problem()} (waited {seconds:g} s)",
                    where="strategy.timeout",
                    hint="see the logs of that rank; a step that takes so long needs a longer one",
                )
            time.sleep(_NAP_SECONDS)


def _pieces(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The bytes of arrays, in pieces that MPI can count."""
    flats = [array.reshape(-1).view(np.uint8) for array in arrays]
    return [
        flat[start : start + _PIECE_BYTES]
        for flat in flats
        for start in range(0, flat.size, _PIECE_BYTES)
    ]
