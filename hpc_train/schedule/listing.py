"""List scheduling: items that cannot be divided, each to the rank that would finish it first.

    rank 0  [ fixed | item 0      | item 3  ]        an item of size w keeps rank r busy for
    rank 1  [ fixed | item 1 | item 2    ]           b_r w seconds, after the rank's fixed a_r

Three degrees of knowledge, one rule. Sizes known beforehand: longest first (LPT), which on equal
ranks ends within 4/3 - 1/(3p) of the optimum (Graham, "Bounds on multiprocessing timing anomalies",
SIAM J. Appl. Math. 17, 1969). Sizes known or estimated one at a time, as items come: in the given
order, within 2 - 1/p on equal ranks (Graham 1966). Sizes unknown: the rank that is free first,
which is the same rule for items of size 0. On ranks of unlike speed "finishes it first" replaces
"is free first": a slow rank that is idle must not take what a fast one, still busy, would end
earlier (Ibarra and Kim, J. ACM 24, 1977).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Placed:
    """An item on a rank, from `start` to `finish`, in seconds."""

    item: int
    rank: int
    start: float
    finish: float


def next_rank(free_seconds: ArrayLike, sample_seconds: ArrayLike, size: float | None) -> int:
    """The rank that would finish an item first; the lowest among equals.

    Args:
        free_seconds: when each rank will be free, fixed costs included, shape (num_ranks,).
        sample_seconds: seconds per unit of size, > 0, shape (num_ranks,).
        size: size of the item, >= 0; None if it is unknown.
    """
    free = np.asarray(free_seconds, np.float64)
    return int(np.argmin(free + np.asarray(sample_seconds) * (size or 0.0)))


def list_schedule(
    sizes: Sequence[float], fixed_seconds: Sequence[float], sample_seconds: Sequence[float]
) -> list[Placed]:
    """Place items in the given order, each on the rank that would finish it first.

    Args:
        sizes: size of each item, >= 0.
        fixed_seconds: what each rank spends before its first item, shape (num_ranks,).
        sample_seconds: seconds per unit of size, > 0, shape (num_ranks,).
    """
    free = np.array(fixed_seconds, np.float64)
    pace = np.asarray(sample_seconds, np.float64)
    placed = []
    for item, size in enumerate(sizes):
        rank = next_rank(free, pace, size)
        start = float(free[rank])
        free[rank] += pace[rank] * size
        placed.append(Placed(item, rank, start, float(free[rank])))
    return placed


def longest_first(
    sizes: Sequence[float], fixed_seconds: Sequence[float], sample_seconds: Sequence[float]
) -> list[Placed]:
    """Place items, the longest first (LPT), each on the rank that would finish it first.

    Arguments as of `list_schedule`; the result is in the order of placing.
    """
    order = sorted(range(len(sizes)), key=lambda item: (-sizes[item], item))
    placed = list_schedule([sizes[item] for item in order], fixed_seconds, sample_seconds)
    return [Placed(order[one.item], one.rank, one.start, one.finish) for one in placed]


def first_free(
    sizes: Sequence[float], fixed_seconds: Sequence[float], sample_seconds: Sequence[float]
) -> list[Placed]:
    """What happens if sizes are unknown when items are handed out: the first free rank takes one.

    Arguments as of `list_schedule`; the sizes only say when a rank is free again.
    """
    free = [(float(seconds), rank) for rank, seconds in enumerate(fixed_seconds)]
    heapq.heapify(free)
    placed = []
    for item, size in enumerate(sizes):
        start, rank = free[0]
        finish = start + sample_seconds[rank] * size
        heapq.heapreplace(free, (finish, rank))
        placed.append(Placed(item, rank, start, finish))
    return placed
