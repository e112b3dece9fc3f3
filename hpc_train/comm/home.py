"""Each rank's part of its node's cores, on which its computing thread stays.

    cores    0     1          of one that stands still (it sleeps, or its quota is spent) the kernel
    asleep   r0    .          does not know that it will soon run
    awake    .     r1, r0     so two ranks may meet on a core, and stay there for a step or so
    home     r0    r1         while the other one is free

Only that thread stays; those that read, write and watch go where there is room. A rank that gets
clearly less of its home than it is due, since another program is busy there, roams for a while, for
longer and longer if that repeats itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

from hpc_train.cores import roam, stay

_LOOK_NS = 300_000_000  # of running and waiting to run, over which a rank judges its home
_LEAST = 0.8  # of what it is due; with less it roams ...
_FIRST_REST, _LONGEST_REST = 32, 4096  # ... for so many steps
_SCHEDSTAT = "/proc/thread-self/schedstat"  # nanoseconds: has run, has waited to run


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
    """Keeps the calling thread on some of the cores that it may use.

    Args:
        cores: where it belongs.
        due: CPU seconds a second that it gets if nobody else is there, in (0, 1].
        times: gives for how long the caller has run, and has waited to run, in ns.
        stay, roam: let the caller run on the given cores only, and on all again.
    """

    def __init__(
        self,
        cores: frozenset[int],
        due: float,
        times: Callable[[], tuple[int, int]],
        stay: Callable[[frozenset[int]], None] = stay,
        roam: Callable[[], None] = roam,
    ) -> None:
        self._cores = cores
        self._due = due
        self._times = times
        self._stay, self._roam = stay, roam
        self._is_there = False
        self._since = (0, 0)
        self._rest = 0  # steps for which it roams
        self._next_rest = _FIRST_REST

    def come(self) -> None:
        """Be there from now on, or roam, if it does not get there what it is due."""
        if self._rest:
            self._rest -= 1
            return
        if not self._is_there:
            try:
                self._stay(self._cores)
            except OSError:  # it may not be moved
                self._rest = _LONGEST_REST
                return
            self._is_there, self._since = True, self._times()
            return
        now = self._times()
        ran, waited = (new - old for new, old in zip(now, self._since, strict=True))
        if ran + waited < _LOOK_NS:
            return
        self._since = now
        if ran >= _LEAST * self._due * (ran + waited):
            self._next_rest = _FIRST_REST
            return
        self.leave()
        self._rest = self._next_rest
        self._next_rest = min(2 * self._next_rest, _LONGEST_REST)

    def leave(self) -> None:
        """Roam until it shall come again."""
        if self._is_there:
            self._is_there = False
            with suppress(OSError):
                self._roam()


def home_of(cores: Sequence[Sequence[int]], rank: int, cpus: float | None) -> Home | None:
    """The home of one of the ranks of a node; None without one, or where that cannot be judged.

    Args:
        cores: as in `homes`.
        rank: which of them calls.
        cpus: its quota, in CPU seconds a second; None without one.
    """
    parts = homes(cores)
    if parts is None or not os.access(_SCHEDSTAT, os.R_OK):
        return None
    return Home(parts[rank], min(cpus or 1.0, 1.0), _Times())


class _Times:
    """For how long the thread that first asks has run, and has waited to run, in ns."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None

    def __call__(self) -> tuple[int, int]:
        if self._file is None:
            self._file = open(_SCHEDSTAT, "rb", buffering=0)  # noqa: SIM115
        ran, waited, _ = os.pread(self._file.fileno(), 64, 0).split()
        return int(ran), int(waited)
