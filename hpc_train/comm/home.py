"""Each rank's part of its node's cores, to which it comes back.

    cores     0    1    2    3          two ranks: homes 0-1 and 2-3
    asleep    r0             .
    awake     .    .    r0 r1  .        the kernel woke rank 0 where rank 1 was about to run
    home      r0   .    r1   .

Two ranks may meet on one core although another is free: of a rank that stands still (it sleeps, or
its quota is spent) the kernel does not know that it will soon run, and who is there then stays for
a step or so. Ranks are not tied to their homes, since other programs may be busy there: a rank
moves back when it begins a step elsewhere, and if it is driven out again at once, it stays away for
longer and longer.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

_LONGEST_REST = 256  # steps for which a rank that was driven out stays away


def homes(cores: Sequence[Sequence[int]]) -> list[frozenset[int]] | None:
    """The part of each rank of a node, in order, if there are two or more and all may use the same.

    Args:
        cores: those that each rank may use, by number.

    Returns:
        As many sets, disjoint; None where there is nothing to share out, or not a core for each.
    """
    count, total = len(cores), len(cores[0])
    if count < 2 or count > total or any(set(own) != set(cores[0]) for own in cores):
        return None
    common = sorted(cores[0])
    edges = [rank * total // count for rank in range(count + 1)]
    return [frozenset(common[edges[k] : edges[k + 1]]) for k in range(count)]


class Home:
    """Brings the calling thread back to some of the cores that it may use.

    Args:
        cores: where it belongs.
        current: gives the core on which the caller runs; negative if that cannot be known.
        move: lets the caller run on the given cores only.
    """

    def __init__(
        self,
        cores: frozenset[int],
        current: Callable[[], int],
        move: Callable[[frozenset[int]], None],
    ) -> None:
        self._cores = cores
        self._current = current
        self._move = move
        self._rest = 0  # calls for which it stays where it is
        self._next_rest = 0

    def come(self) -> None:
        """Move home, unless there already or driven out of there just now."""
        if self._rest:
            self._rest -= 1
        elif self._current() in self._cores:
            self._next_rest = 0
        else:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest + 1, _LONGEST_REST)
            with suppress(OSError):  # where it may not be moved, it stays
                self._move(self._cores)


def home_of(cores: Sequence[Sequence[int]], rank: int) -> Home | None:
    """The home of one of the ranks of a node; None without one, or where threads cannot be moved.

    Args:
        cores: as in `homes`.
        rank: which of them calls.
    """
    parts = homes(cores)
    current = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    if parts is None or current is None or not hasattr(os, "sched_setaffinity"):
        return None
    return Home(parts[rank], current, _move)


def _move(cores: frozenset[int]) -> None:
    """Let the calling thread run on `cores` at once, then where it may again."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & allowed or allowed)
    os.sched_setaffinity(0, allowed)
