"""Whom the watchdog suspects: pure, from what it sees of the ranks of its node.

    rank 0   communication   4.0 s   operation 817      waits
    rank 1   data           61.0 s   operation 816      hung: over its limit, and others wait for it
    rank 2   communication   4.0 s   operation 817      waits

Times are counted by the watchdog, in steps of its own: time in which it did not run itself (a busy
machine, a job that was stopped as a whole) does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_train.recovery.autopsy import WAITING

STOPPED_SECONDS = 0.5  # after which a stopped process is taken for one that stays stopped
GONE_SECONDS = 5.0  # after which a death counts as one that nobody else has noticed
_ALONE_FACTOR = 2.0  # on the limit of a rank for which nobody on its node waits


@dataclass(frozen=True)
class Sight:
    """What is seen of one rank.

    Attributes:
        rank: which, as numbered at the beginning.
        process: the state of its process, "" if it is gone.
        idle_seconds: for how long it has not written an event.
        silent_seconds: for how long it has been stopped or gone.
        limit_seconds: for how long the phase may last.
        phase: what it is in.
        operations: how many operations with others it has begun.
        left: whether it took its leave.
    """

    rank: int
    process: str
    idle_seconds: float
    silent_seconds: float
    limit_seconds: float
    phase: str
    operations: int
    left: bool = False


@dataclass(frozen=True)
class Suspicion:
    """Somebody keeps the others waiting.

    Attributes:
        what: "stopped", "hung", or "gone" without the MPI having noticed.
        rank: who.
        waiting: a rank that waits for it; None if none is known.
    """

    what: str
    rank: int
    waiting: int | None


def suspect(sights: Sequence[Sight], alone: bool) -> Suspicion | None:
    """Whom to suspect now; None if all is well.

    Args:
        sights: of all ranks of this node.
        alone: whether the ranks that wait may all be on other nodes, or there are none.
    """
    here = [sight for sight in sights if not sight.left]
    alive = [sight for sight in here if sight.process]
    for sight in here:
        if sight.process == "T" and sight.silent_seconds >= STOPPED_SECONDS:
            if all(other.process == "T" for other in alive):
                return None
            return Suspicion("stopped", sight.rank, _waiting(sight, alive))
    ahead = max((s.operations for s in alive), default=0)
    late = [s for s in alive if _is_late(s, ahead)]
    if late:
        first = min(late, key=lambda s: (s.operations, -s.idle_seconds))
        waiting = _waiting(first, alive)
        patience = _ALONE_FACTOR * first.limit_seconds
        if waiting is not None or (alone and first.idle_seconds > patience):
            return Suspicion("hung", first.rank, waiting)
    for sight in here:
        stuck = [s for s in alive if s.phase in WAITING and s.idle_seconds >= GONE_SECONDS]
        if not sight.process and sight.silent_seconds >= GONE_SECONDS and len(stuck) == len(alive):
            return Suspicion("gone", sight.rank, stuck[0].rank if stuck else None)
    return None


def _is_late(sight: Sight, ahead: int) -> bool:
    """Whether a rank, that neither waits for others nor is under a debugger, is over its limit.

    In a phase of waiting it does wait, unless others have begun an operation that it has not.
    """
    waits = sight.phase in WAITING and sight.operations == ahead
    debugged = sight.process in ("t", "T")
    return not waits and not debugged and sight.idle_seconds > sight.limit_seconds


def _waiting(culprit: Sight, alive: Sequence[Sight]) -> int | None:
    """A rank that waits for the culprit: ahead in operations, or in a phase of waiting."""
    for sight in alive:
        ahead = sight.operations > culprit.operations
        waits = sight.phase in WAITING and culprit.phase not in WAITING
        if sight.rank != culprit.rank and (ahead or waits):
            return sight.rank
    return None
