"""Where the ranks gather before they work on something together, without burning CPU time.

    rank 0   compute ........ | test test nap  nap   nap    | sum
    rank 1   compute ........................................ | sum

MPI spins while it waits. On cores of one's own that is fastest. But where ranks are more than
cores, who spins takes time from who computes; and under a CPU quota a rank that spins has spent its
time when its turn comes. There ranks sleep, the longer the longer they have waited already.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_train.quota import cpu_quota
from hpc_train.record import operation, phase
from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI

_SPINS = 20  # tests before the first nap
_PART = 1 / 8  # of what was waited already, for the next nap ...
_SHORTEST_SECONDS, _LONGEST_SECONDS = 50e-6, 2e-3  # ... within these: a look costs CPU time, too


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
    return [node, sorted(os.sched_getaffinity(0)), *limit]


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


class Gate:
    """Lets ranks pass when all of them are there.

    Args:
        communicator: the ranks.
        seats: of all ranks; where none of them is short of cores, nobody waits here: MPI's own
            waiting is faster.

    Attributes:
        seats: as above.
        is_tight: whether any rank has less than a core of its own.
        cpus: CPU seconds a second that this rank may use, if a quota limits it alone; else None.
    """

    def __init__(self, communicator: MPI.Intracomm, seats: Sequence[Seat]) -> None:
        self.seats = seats
        self.cpus = own_cpus(seats, communicator.Get_rank())
        self._communicator = communicator
        self.is_tight = is_tight(seats)

    def pass_together(self) -> None:
        """Return once all ranks have called, or at once where none needs to sleep."""
        if not self.is_tight:
            return
        operation("assemble")
        request = self._communicator.Ibarrier()
        for _ in range(_SPINS):
            if request.Test():
                return
        started = time.perf_counter()
        with phase("waiting", operation="assemble"):
            while not request.Test():
                waited = time.perf_counter() - started
                time.sleep(min(max(waited * _PART, _SHORTEST_SECONDS), _LONGEST_SECONDS))
