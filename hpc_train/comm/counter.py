"""Numbers that ranks take one by one, each of them once: for work that goes to whoever is free.

    rank 0            the others
    take -> 0         take -> 1     take -> 2      take -> None: there are no more in this round

In one node the counter lies in shared memory, under a lock that the kernel takes back from the
dead. Between nodes rank 0 keeps it:

    rank r    ask (round, total, least left)  -->   rank 0   a thread; or, where MPI lets one thread
              <--  number, or that is all                    alone use it, in `attend` and `settle`

A round ends for a rank when it is told that there are no more. No rank asks for a number of the
next one before all are through with this one: who calls must see to that.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_train import shm
from hpc_train.comm.threads import lets_threads

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpc_train.comm.communicator import Comm

_ASK, _ANSWER = 1, 2
_NONE = -1
_SPINS = 50  # looks before the first nap
_NAP_SECONDS = 50e-6
_JOIN_SECONDS = 10.0


class Counter(Protocol):
    """Gives out the numbers 0, 1, ... of each round."""

    def begin(self, number_of: int) -> None:
        """A round begins, on this rank.

        Args:
            number_of: the round, > all before.
        """

    def take(self, number_of: int, total: int, least_left: int = 1) -> int | None:
        """The next number of a round, or None, after which this rank must not ask again in it.

        Args:
            number_of: the round.
            total: how many numbers it has, the same on all ranks; 0 to leave it.
            least_left: how many must be left for this rank to get one.
        """

    def attend(self) -> None:
        """Answer those who ask, where nobody else does it; never waits."""

    def settle(self) -> None:
        """Return when the others can do without this rank in this round."""

    def close(self) -> None:
        """Give back what it holds; not collective."""


def open_counter(comm: Comm) -> Counter:
    """A counter of all ranks; collective."""
    if comm.world.num_nodes == 1:
        segment, _ = shm.meet(
            shm.PAGE_BYTES, comm.world.rank, comm.world.size, comm.broadcast, comm.gather
        )
        if segment is not None:
            return InMemory(segment)
    return Asked(comm, in_thread=lets_threads(comm))


class InMemory:
    """A counter in memory that all ranks share.

    Args:
        segment: it; belongs to the counter from now on.
    """

    def __init__(self, segment: shm.Segment) -> None:
        self._segment = segment
        self._numbers = segment.map()[:16].view(np.int64)  # round, next number

    def begin(self, number_of: int) -> None:
        """Whoever takes the first number begins it."""

    def take(self, number_of: int, total: int, least_left: int = 1) -> int | None:
        """The next number, see `Counter`."""
        looks = 0
        while not self._segment.try_lock(0):
            looks += 1
            time.sleep(0 if looks < _SPINS else _NAP_SECONDS)
        try:
            found = int(self._numbers[1]) if self._numbers[0] == number_of else 0
            if total - found < least_left:
                return None
            self._numbers[:] = number_of, found + 1
            return found
        finally:
            self._segment.unlock(0)

    def attend(self) -> None:
        """Nobody asks."""

    def settle(self) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Close the memory."""
        self._segment.close()


class Tickets:
    """What rank 0 knows: the round, its next number, and how many others are through with it."""

    def __init__(self) -> None:
        self.round, self.next, self.ended = 0, 0, 0

    def begin(self, number_of: int) -> None:
        """Begin a round, if nobody has."""
        if number_of != self.round:
            self.round, self.next, self.ended = number_of, 0, 0

    def take(self, number_of: int, total: int, least_left: int) -> int:
        """The next number of a round, or -1."""
        self.begin(number_of)
        if total - self.next < least_left:
            return _NONE
        self.next += 1
        return self.next - 1


class Asked:
    """A counter on rank 0, which the others ask.

    Args:
        comm: the ranks.
        in_thread: whether a thread of rank 0 answers.
    """

    def __init__(self, comm: Comm, *, in_thread: bool) -> None:
        self._mpi = comm._mpi
        self._box: MPI.Comm = comm._registered(comm._base.Dup())
        self._rank, self._others = comm.world.rank, comm.world.size - 1
        self._tickets = Tickets()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._is_open = threading.Event()  # while somebody may ask
        self._closed = False
        self._thread: threading.Thread | None = None
        if in_thread and self._rank == 0:
            self._thread = threading.Thread(target=self._serve, name="counter", daemon=True)
            self._thread.start()

    def begin(self, number_of: int) -> None:
        """Be ready to answer, on rank 0."""
        if self._rank == 0:
            with self._lock:
                self._tickets.begin(number_of)
            self._is_open.set()

    def take(self, number_of: int, total: int, least_left: int = 1) -> int | None:
        """The next number, see `Counter`.

        Raises:
            Exception: MPI's, if a rank died.
        """
        if self._rank == 0:
            self.attend()
            with self._lock:
                found = self._tickets.take(number_of, total, least_left)
        else:
            found = self._ask(np.array([number_of, total, least_left], np.int64))
        return None if found == _NONE else found

    def _ask(self, question: NDArray[np.int64]) -> int:
        answer = np.empty(1, np.int64)
        requests = [self._box.Irecv(answer, 0, _ANSWER), self._box.Isend(question, 0, _ASK)]
        looks = 0
        while not self._mpi.Request.Testall(requests):
            looks += 1
            time.sleep(0 if looks < _SPINS else _NAP_SECONDS)
        return int(answer[0])

    def attend(self) -> None:
        """Answer those who have asked; a thread's error is told here.

        Raises:
            Exception: MPI's, if a rank died.
        """
        if self._error is not None:
            raise self._error
        if self._rank == 0 and self._thread is None:
            while self._answer():
                pass

    def settle(self) -> None:
        """On rank 0, if no thread does: answer until all others are through with the round.

        Raises:
            Exception: MPI's, if a rank died.
        """
        self.attend()
        if self._rank == 0 and self._thread is None:
            while self._tickets.ended < self._others:
                if not self._answer():
                    time.sleep(_NAP_SECONDS)

    def close(self) -> None:
        """Join the thread; MPI's communicator goes with the others."""
        self._closed = True
        self._is_open.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def _answer(self) -> bool:
        """Answer one question, if there is one."""
        status: Any = self._mpi.Status()
        message = self._box.Improbe(tag=_ASK, status=status)
        if message is None:
            return False
        question = np.empty(3, np.int64)
        message.Recv(question)
        with self._lock:
            found = self._tickets.take(*question.tolist())
            self._tickets.ended += found == _NONE
        self._box.Send(np.array([found], np.int64), status.Get_source(), _ANSWER)
        return True

    def _serve(self) -> None:
        """Answer, asleep while nobody can ask: all are through, and rank 0 has not begun anew."""
        looks = 0
        while True:
            self._is_open.wait()
            if self._closed:
                return
            try:
                looks = 0 if self._answer() else looks + 1
            except BaseException as error:  # told to whoever asks next, here
                self._error = error
                return
            with self._lock:
                if self._tickets.ended == self._others:
                    self._is_open.clear()
                    continue
            time.sleep(0 if looks < _SPINS else _NAP_SECONDS)
