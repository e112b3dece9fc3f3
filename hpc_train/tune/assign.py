"""Which trial goes to which ranks, and when ranks join a running one. Pure.

    rank 0  [ trial 0 ........ | trial 4 ........ ]      list scheduling: each trial, in order, to
    rank 1  [ trial 1 ... | trial 3 .... |              the ranks that would finish it first, be
    rank 2  [ trial 2 (2 ranks) ....     |              they free now or not; those whose ranks
    rank 3  [                            |              are free now are started

Trials whose lengths are known come longest first (`schedule/listing.py` has the bounds). A trial
that waits for ranks that are still busy keeps them: a later one may use them before only if it
ends in time, so none waits for ever.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

# k ranks are k ** _SCALING times as fast as one
_SCALING = 0.8
# a join must save so much of what is left, after the cost of starting again
_WORTH = 0.8


@dataclass(frozen=True)
class Want:
    """A trial that waits: the seconds that one rank of pace 1 needs for it, and its ranks."""

    trial: int
    seconds: float
    ranks: int


@dataclass(frozen=True)
class Place:
    """A trial on its ranks, from `start` to `finish`, in seconds."""

    trial: int
    ranks: tuple[int, ...]
    start: float
    finish: float


def in_order(wants: Sequence[Want]) -> list[Want]:
    """The longest first; equal ones as they were asked for."""
    return sorted(wants, key=lambda want: (-want.seconds, want.trial))


def assign(
    wants: Sequence[Want],
    free_at: Mapping[int, float],
    pace: Mapping[int, float],
    now: float,
    nodes: Sequence[int] = (),
) -> Iterator[Place]:
    """Place trial after trial, in the given order; those with `start` <= now are to be started.

    Args:
        wants: the trials; one that wants more ranks than there are gets all.
        free_at: when each rank will be free, `now` for one that is.
        pace: seconds that each rank needs for a second's work, > 0.
        nodes: the node of each rank; among equals a trial's ranks are neighbours.
    """
    free = {rank: max(seconds, now) for rank, seconds in free_at.items()}
    for want in wants:
        count = min(want.ranks, len(free))
        cost = duration(want.seconds, count)

        def finish(rank: int, cost: float = cost) -> tuple[float, int, int]:
            return free[rank] + pace[rank] * cost, nodes[rank] if nodes else 0, rank

        chosen = heapq.nsmallest(count, free, key=finish)
        start = max(free[rank] for rank in chosen)
        end = start + cost * max(pace[rank] for rank in chosen)
        for rank in chosen:
            free[rank] = end
        yield Place(want.trial, tuple(sorted(chosen)), start, end)


def duration(seconds: float, ranks: int) -> float:
    """What a trial of so many seconds takes on several ranks."""
    return seconds / float(ranks**_SCALING)


def widen(wants: Sequence[Want], spare: int, least_seconds: float) -> list[Want]:
    """Give ranks that would idle to trials that wait, one by one to the one that ends last.

    Args:
        wants: all trials that are left.
        spare: ranks beyond those that the trials want.
        least_seconds: shorter trials stay as they are.
    """
    found = {want.trial: want for want in wants}
    for _ in range(spare):
        last = max(
            found.values(), key=lambda want: (duration(want.seconds, want.ranks), want.trial)
        )
        if duration(last.seconds, last.ranks) <= least_seconds:
            break
        found[last.trial] = replace(last, ranks=last.ranks + 1)
    return list(found.values())


def join(left: Mapping[int, tuple[float, int]], idle: int, restart_seconds: float) -> int | None:
    """The running trial that idle ranks should join; None if that finishes nothing sooner.

    Only the trial that would end last decides when the study ends.

    Args:
        left: seconds that each running trial has left, and its ranks.
        idle: ranks with nothing to do.
        restart_seconds: what stopping it and starting again costs.
    """
    if not left or not idle:
        return None
    trial = max(left, key=lambda one: (left[one][0], -one))
    seconds, ranks = left[trial]
    joined = restart_seconds + seconds * duration(1.0, ranks + idle) / duration(1.0, ranks)
    return trial if joined < _WORTH * seconds else None
