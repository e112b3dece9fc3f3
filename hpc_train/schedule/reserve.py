"""The reserve: the part of a batch that nobody owns, claimed in small items by whoever is free.

    rank 0   | own ................ | item 0 | item 3 | item 4 |
    rank 1   | own .............................................. |     stutters in this step
    rank 2   | own ................. | item 1 | item 2 | item 5 |

    batch    | own of 0 | own of 1 | own of 2 | item 0 | item 1 | ... | n |     in cutting order

Who owns how much follows from a forecast, so all finish together if that comes true. What no
forecast catches is caught by the items: they go to whoever is done first, which is list scheduling
(Graham, "Bounds on multiprocessing timing anomalies", 1969): the last finish lies at most one item
behind the even one. Items become smaller: p of them at a time are half of what is left (Hummel,
Schonberg and Flynn, "Factoring", Communications of the ACM 35, 1992), down to an eighth of a rank's
part of the reserve: each is a forward and backward pass of its own.

A slow rank that took one of the last items would keep the others waiting: where L samples are left
rank r takes an item of m only if it will be through with it before the others are through with all
of them: m / v_r <= L / (V - v_r) + m / v_f for speeds v, their sum V and the fastest v_f, all as
the shares say. It always holds for the fastest rank, so no item is left over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpc_train.plan import Batch, Work
from hpc_train.schedule.rounding import largest_remainders

_LEAST = 8  # an item is no smaller than this part of what each rank gives

Seconds = Callable[[NDArray[np.int64]], NDArray[np.float64]]


class Claimed(NamedTuple):
    """What ranks claimed in a batch: samples, and the seconds they took; shape (num_ranks,)."""

    samples: Sequence[int]
    seconds: Sequence[float]


@dataclass(frozen=True)
class Reserve:
    """How much of each batch is left to be claimed.

    Attributes:
        part: of the batch, in [0, 1).
        unit: samples that are not cut, but for the last ones, >= 1.
        most: most samples of an item, >= 1; None for no limit.
    """

    part: float
    unit: int = 1
    most: int | None = None

    def cut(self, shares: Sequence[int]) -> Cut:
        """A batch of which the ranks would have `shares`, of shape (num_ranks,), if all went well.

        Each rank that has samples keeps at least one (or a unit) of its own.
        """
        return _cut(self, tuple(shares))


@dataclass(frozen=True)
class Cut:
    """A batch, cut into own shares and items.

    Attributes:
        shares: what each rank would have if all went well, shape (num_ranks,).
        owned: what of it each one has for certain, shape (num_ranks,).
        edges: where in the batch each item begins; the end of the last one comes last.
    """

    shares: tuple[int, ...]
    owned: tuple[int, ...]
    edges: tuple[int, ...]

    @cached_property
    def _offsets(self) -> list[int]:
        return [0, *accumulate(self.owned)]

    @property
    def size(self) -> int:
        """Samples of the batch."""
        return self.edges[-1]

    @property
    def num_items(self) -> int:
        """How many items there are."""
        return len(self.edges) - 1

    def place(self, number: int) -> tuple[int, int]:
        """Where item `number` begins and ends in the batch."""
        return self.edges[number], self.edges[number + 1]

    def work(self, batch: Batch, rank: int) -> Work:
        """What `rank` owns of `batch`, and what it may claim: nothing if it is parked."""
        own = self._offsets[rank], self._offsets[rank + 1]
        reserve = (self.edges[0], self.size) if self.shares[rank] else (0, 0)
        return Work(batch, *own, reserve)

    def least_left(self, rank: int) -> int:
        """How many items must be left for `rank` to take one, >= 1; more than there are: never."""
        own, fastest = self.shares[rank], max(self.shares)
        if own == 0:
            return self.num_items + 1
        lag = (1 / own - 1 / fastest) * (self.size - own) - 1e-9
        for number, (first, last) in enumerate(pairwise(self.edges)):
            if (last - first) * lag > self.size - first:
                return self.num_items - number + 1
        return 1


@lru_cache(maxsize=8)
def _cut(reserve: Reserve, shares: tuple[int, ...]) -> Cut:
    unit, size = reserve.unit, sum(shares)
    units = int(reserve.part * size) // unit
    given = largest_remainders(units, shares) if units else (0,) * len(shares)
    owned = tuple(
        own - min(part * unit, max(own - 1, 0) // unit * unit)
        for own, part in zip(shares, given, strict=True)
    )
    working = sum(own > 0 for own in shares)
    left = size - sum(owned)
    most, least = reserve.most or size, -(-left // (_LEAST * working))
    if unit > 1:
        most = least = unit
    edges = [size - left]
    while left:
        item = min(max(-(-left // (2 * working)), least), most)
        for _ in range(min(working, -(-left // item))):
            edges.append(min(edges[-1] + item, size))
        left = size - edges[-1]
    return Cut(shares, owned, tuple(edges))


def simulate(cut: Cut, seconds: Seconds) -> tuple[NDArray[np.int64], Claimed]:
    """What each rank computes, and what of it was claimed, if ranks need so many `seconds`.

    Args:
        cut: of the batch.
        seconds: of each rank for its samples, both of shape (num_ranks,).
    """
    counts = np.array(cut.owned)
    alone = seconds(counts)
    free = [(float(alone[rank]), rank) for rank in np.flatnonzero(cut.shares).tolist()]
    heapq.heapify(free)
    number = 0
    while free and number < cut.num_items:
        _, rank = free[0]
        if cut.num_items - number < cut.least_left(rank):
            heapq.heappop(free)
            continue
        first, last = cut.place(number)
        counts[rank] += last - first
        number += 1
        heapq.heapreplace(free, (float(seconds(counts)[rank]), rank))
    more = seconds(counts) - alone
    return counts, Claimed((counts - cut.owned).tolist(), more.tolist())
