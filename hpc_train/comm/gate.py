"""Where the ranks gather before they work on something together, without burning CPU time.

    rank 0   compute ........ | test test nap  nap   nap    | sum
    rank 1   compute ........................................ | sum

MPI spins while it waits. On cores of one's own that is fastest. But where ranks are more than
cores, who spins takes time from who computes; and under a CPU quota a rank that spins has spent its
time when its turn comes. There ranks sleep, the longer the longer they have waited already.

A rank that has nothing to do in a batch waits for all of it, on any machine: it sleeps for as long
as it has lately waited at least, and then looks for the others between short naps, so that nobody
waits for it. See also `yielding`, and `home`: who slept may wake up on the core of another one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hpc_train.comm.home import Home, home_of
from hpc_train.comm.yielding import Yielding
from hpc_train.cores import usable_cores
from hpc_train.quota import cpu_quota
from hpc_train.record import operation, phase
from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI

_SPINS = 20  # tests before the first nap
# a nap is an eighth of what was waited already, up to 0.3 ms, and from ten milliseconds on a 32nd:
# who oversleeps keeps the others waiting, and a look costs CPU time
_PART, _PART_SECONDS, _LATER_PART = 1 / 8, 0.3e-3, 1 / 32
_SHORTEST_SECONDS, _LONGEST_SECONDS = 50e-6, 2e-3
_REMEMBERED = 8  # waits of an idle rank; it sleeps for the shortest of them ...
_SURE_PART, _EARLY_SECONDS = 0.8, 1e-3  # ... less what steps vary by, and what waking up may take
_SLICE_SECONDS = 20e-3  # the most that it sleeps without a look: steps may have become shorter


@dataclass(frozen=True)
class Seat:
    """What a rank has to compute with.

    Attributes:
        node: a key of its node.
        cores: those that it may use, by number.
        cpus: its quota, in CPU seconds a second; 0 for none.
        group: all ranks of a node with the same share the quota.
    """

    node: str
    cores: Sequence[int]
    cpus: float = 0.0
    group: str = ""


def own_seat(node: str) -> list[Json]:
    """What this process has to compute with on `node`, as `Seat` takes it."""
    quota = cpu_quota()
    limit: list[Json] = [quota.cpus, quota.group] if quota else []
    return [node, usable_cores(), *limit]


def is_tight(seats: Sequence[Seat]) -> bool:
    """Whether any rank has less than a core of its own."""
    nodes: dict[str, list[Seat]] = {}
    for seat in seats:
        nodes.setdefault(seat.node, []).append(seat)
    crowded = any(
        len(node) > len({core for seat in node for core in seat.cores}) for node in nodes.values()
    )
    return crowded or any(0 < seat.cpus < len(seat.cores) for seat in seats)


def own_cpus(seats: Sequence[Seat], rank: int) -> float | None:
    """The quota of `rank`, if no other rank shares it; None without one."""
    own = seats[rank]
    sharing = [s for s in seats if (s.node, s.group) == (own.node, own.group)]
    return own.cpus if 0 < own.cpus < len(own.cores) and len(sharing) == 1 else None


class Request(Protocol):
    """What others do their part of; as of MPI."""

    def Test(self) -> bool:  # noqa: N802
        """Whether it is done."""

    def Wait(self) -> bool:  # noqa: N802
        """Return when it is done."""


class Gate:
    """Lets ranks pass when all of them are there.

    Args:
        communicator: the ranks.
        seats: of all ranks; where none of them is short of cores, nor idle, none waits here: MPI's
            own waiting is faster.
        yielding: whether MPI yields while it waits; None if that is not to be touched.
        home: the cores of this rank; by default its part of those that its node's ranks share.

    Attributes:
        seats: as above.
        is_tight: whether any rank has less than a core of its own.
        cpus: CPU seconds a second that this rank may use, if a quota limits it alone; else None.
        late_seconds: for which this rank stood still although the others had come, as far as is
            known (`delegation`); until `take_late_seconds`.
    """

    def __init__(
        self,
        communicator: MPI.Intracomm,
        seats: Sequence[Seat],
        yielding: Yielding | None = None,
        home: Home | None = None,
    ) -> None:
        self.seats = seats
        self._communicator = communicator
        self._rank = communicator.Get_rank()
        self.cpus = own_cpus(seats, self._rank)
        self.late_seconds = 0.0
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self.is_tight = is_tight(seats)
        self._longest_nap = _LONGEST_SECONDS if self.is_tight else _SHORTEST_SECONDS
        self._yielding = yielding or Yielding(None)
        self._yielding.set_yielding(self.is_tight)
        near = [rank for rank, seat in enumerate(seats) if seat.node == seats[self._rank].node]
        cores = [seats[rank].cores for rank in near]
        self._home = home or home_of(cores, near.index(self._rank), self.cpus)

    def pass_together(self, counts: Sequence[int]) -> None:
        """Return once all ranks have called, or at once where none needs to sleep.

        Args:
            counts: the samples that each rank had, shape (num_ranks,); the same on all of them.
        """
        somebody_is_idle = 0 in counts
        is_idle = somebody_is_idle and counts[self._rank] == 0
        self._yielding.set_yielding(self.is_tight or somebody_is_idle)
        if not (self.is_tight or somebody_is_idle):
            self._waits.clear()
            self.leave()
            return
        operation("assemble")
        self.wait(self._communicator.Ibarrier(), is_idle=is_idle)

    def wait(self, request: Request, *, is_idle: bool = False) -> None:
        """Return once a request is done, which takes until others come; this rank sleeps.

        Args:
            request: of MPI.
            is_idle: whether this rank had nothing to do in this batch.
        """
        started = time.perf_counter()
        # all of it: who looks may stand still while it does, its quota being spent
        with phase("waiting", operation="assemble"):
            if not any(request.Test() for _ in range(_SPINS)):
                if is_idle and self._overslept(request, started):
                    self._waits.clear()
                    return
                self._await(request, is_idle=is_idle)
        if is_idle:
            self._waits.append(time.perf_counter() - started)
            return
        self._waits.clear()  # by the time that it is idle again, steps may take less
        if self._home is not None:
            self._home.come()

    def take_late_seconds(self) -> float:
        """`late_seconds`, told once."""
        taken, self.late_seconds = self.late_seconds, 0.0
        return taken

    def leave(self) -> None:
        """Let this thread run where it may again, until ranks next wait here."""
        if self._home is not None:
            self._home.leave()

    def _overslept(self, request: Request, started: float) -> bool:
        """Sleep while an idle rank will hardly be missed; whether others are there before that."""
        until = started + self._sure_seconds()
        while (seconds := until - time.perf_counter()) > 0:
            time.sleep(min(seconds, _SLICE_SECONDS))
            if request.Test():  # who knows for how long they have been there
                return True
        return False

    def _await(self, request: Request, *, is_idle: bool) -> None:
        """Look for the others between naps, unless MPI yields to whoever naps on this core.

        Also where there are cores enough: the kernel may let a rank that wakes up share the core of
        one that spins, in slices of milliseconds, although another core is free.
        """
        if not (is_idle or self.is_tight) and self._yielding.is_settable:
            request.Wait()
            return
        started, longest = time.perf_counter(), self._longest_nap
        while not request.Test():
            waited = time.perf_counter() - started
            nap = max(min(waited * _PART, _PART_SECONDS), waited * _LATER_PART)
            time.sleep(min(max(nap, _SHORTEST_SECONDS), longest))

    def _sure_seconds(self) -> float:
        """For how long an idle rank will hardly be missed; 0 until it has waited a few times."""
        if len(self._waits) < _REMEMBERED:
            return 0.0
        return max(0.0, _SURE_PART * min(self._waits) - _EARLY_SECONDS)
