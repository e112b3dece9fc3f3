"""Where a server's slice is served, while a segment is trained: a thread of its own.

main thread     pull   compute   push   pull ...      works, or hands out ranges
this thread     adds what is pushed, follows orders, sends the slice to those that pull

One transfer at a time fills the card of a server, if the other end gives it all of its own. So two
servers do not take pushes of the same rank first: each begins at another one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import Post
from hpc_train.errors import CommunicationError
from hpc_train.strategies.parameter_server.keeper import Keeper
from hpc_train.strategies.parameter_server.letters import arrays
from hpc_train.strategies.parameter_server.orders import heard
from hpc_train.world import Json

_NAP_SECONDS = 0.0002


class _Left(Exception):  # noqa: N818 - no error
    """The thread shall end, whatever it waits for."""


class Desk:
    """Serves a slice.

    Args:
        keeper: of the slice.
        requests, replies: letters from those that work and from rank 0, and to those that work.
        tell: called with what rank 0 shall know.
        seconds: how long an order of rank 0 may take.
        first: the rank that is served before others if several wait; then those after it.
        num_ranks: how many there are.
    """

    def __init__(
        self,
        keeper: Keeper,
        requests: Post,
        replies: Post,
        tell: Callable[[Json], None],
        seconds: float,
        *,
        first: int,
        num_ranks: int,
    ) -> None:
        self.keeper = keeper
        self._requests = requests.watched(self._stay)
        self._replies = replies.watched(self._stay)
        self._tell = tell
        self._seconds = seconds
        self._first, self._num_ranks = first, num_ranks
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._crash: Exception | None = None
        # whose gradients are on their way; small ones leave their rank before the ones before them
        # are taken in, so there may be several of one rank, in its order
        self._pushes: list[tuple[int, Json]] = []
        self._pulls: dict[int, int] = {}  # who wants the weights, and of which version at least
        self._hosts = [torch.empty_like(one, device="cpu") for one in keeper.weights]

    def open(self) -> None:
        """Serve from now on the weights that this rank has."""
        self.keeper.begin()
        self._pulls.clear()
        self._pushes.clear()
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve, name="slice server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more; nobody may wait for it."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Raise what has ended the thread, if something has."""
        if self._crash is not None:
            raise self._crash

    def add(
        self, number: int, samples: int, num_samples: int, grads: Sequence[torch.Tensor]
    ) -> None:
        """Take in a gradient: one from a thread of this rank."""
        self.check()
        with self._changed:
            norm = self.keeper.add(number, samples, num_samples, grads)
        if norm is not None:
            version = self.keeper.version
            self._tell({"kind": "sum", "batch": number, "norm": norm, "version": version})

    def pull(self, version: int, into: Sequence[NDArray[np.generic]]) -> int:
        """Copy the slice as soon as it is of that version, or a later one, which is returned."""
        with self._changed:
            self._wait_for(version)
            for mine, theirs in zip(arrays(self.keeper.weights), into, strict=True):
                theirs[:] = mine
            return self.keeper.version

    def wait_for(self, version: int) -> None:
        """Return once so many orders were followed.

        Raises:
            CommunicationError: if they do not come in time.
        """
        with self._changed:
            self._wait_for(version)

    def _wait_for(self, version: int) -> None:
        def there() -> bool:
            return self._crash is not None or self.keeper.version >= version

        if not self._changed.wait_for(there, self._seconds):
            raise CommunicationError(
                f"no word from rank 0 on update {version} (waited {self._seconds:g} s)",
                where="strategy.timeout",
                hint="see the log of that rank",
            )
        self.check()

    def _stay(self) -> None:
        if self._stop.is_set():
            raise _Left

    def _serve(self) -> None:
        """The thread."""
        try:
            with torch.no_grad():
                while not self._stop.is_set():
                    if not self.turn():
                        time.sleep(_NAP_SECONDS)
        except _Left:
            return
        except Exception as error:
            with self._changed:
                self._crash = error
                self._changed.notify_all()

    def turn(self) -> bool:
        """Do what can be done without waiting for anybody's next letter; false if that is nothing.

        For the thread alone.
        """
        read, taken, answered = self._read(), self._take_in(), self._answer()
        return read or taken or answered

    def _read(self) -> bool:
        """Hear what all want; false if there is nothing new."""
        found = False
        while (letter := self._requests.poll()) is not None:
            found = True
            rank, header = letter
            if header["kind"] == "push":
                self._pushes.append((rank, header))
            elif header["kind"] == "pull":
                self._pulls[rank] = header["version"]
            else:
                with self._changed:
                    for order in heard(header["orders"]):
                        self.keeper.follow(order)
                    self._changed.notify_all()
        return found

    def _take_in(self) -> bool:
        """Receive one gradient; false if there is none."""
        rank = self._next([rank for rank, _ in self._pushes])
        if rank is None:
            return False
        place = next(place for place, (other, _) in enumerate(self._pushes) if other == rank)
        _, header = self._pushes.pop(place)
        self._requests.receive(rank, arrays(self._hosts))
        self.add(header["batch"], header["samples"], header["num_samples"], self._hosts)
        return True

    def _answer(self) -> bool:
        """Send the slice to one of those that want it as it is now; false if there is none."""
        version = self.keeper.version
        rank = self._next([rank for rank, least in self._pulls.items() if least <= version])
        if rank is None:
            return False
        del self._pulls[rank]
        told = np.array([version])
        self._replies.send_all({rank: (None, [told, *arrays(self.keeper.weights)])})
        return True

    def _next(self, ranks: Collection[int]) -> int | None:
        """Who of them is served next."""
        return min(ranks, key=lambda rank: (rank - self._first) % self._num_ranks, default=None)
