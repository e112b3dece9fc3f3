"""Splitting a batch so that the last rank finishes as early as possible, exactly in integers.

    rank r needs t_r(n) = a_r + b_r n seconds for n > 0 samples, and none for 0

    finish  |          o  t_0(3)        every dot is a slot: the time at which rank r would finish
            |    x     o                its n-th unit; a rank fills its slots from below
          T |----x-----o-----           n_r(T) = slots of rank r at or below T
            |    x     o    z           the makespan is the B-th smallest of all slots
            +----------------- ranks

A split of B units with makespan T exists if and only if the ranks together have B slots at or below
T: fill them from below. So the optimum is the B-th smallest slot, and taking the B smallest slots
gives it. Bisection on T finds almost all of them at once (n_r(T) is a division); a heap of each
rank's next slot gives the rest, one by one. This is the single-round problem of divisible-load
theory, where all workers that take part stop at the same moment (Bharadwaj, Ghose, Mani and
Robertazzi, "Scheduling Divisible Loads in Parallel and Distributed Systems", 1996, chapter 3),
with integers, fixed costs and caps. A rank whose first slot lies above T gets nothing.

With a quantum q a unit is q samples. If q does not divide the batch one unit is short: all others
go to the smallest slots, then the short one to the rank that finishes it first. No other place is
better: where a better split holds fewer full units on that rank, it holds more on another, and
there the short unit would fit below the better split's makespan.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpc_train.errors import ConfigError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_HEAP_UNITS = 64  # what the bisection leaves to the heap
_BISECTIONS = 200  # more than the bits of a float64


def split(
    batch_size: int,
    fixed_seconds: ArrayLike,
    sample_seconds: ArrayLike,
    *,
    caps: ArrayLike | None = None,
    quantum: int = 1,
) -> Counts:
    """The samples of each rank, shape (num_ranks,), summing to `batch_size`.

    The last finish, the maximum over ranks with samples of a_r + b_r n_r, is as small as any split
    into units can make it.

    Args:
        batch_size: samples of the batch, >= 1.
        fixed_seconds: a_r >= 0, shape (num_ranks,); infinity keeps a rank out.
        sample_seconds: b_r > 0, shape (num_ranks,).
        caps: most samples of each rank, >= 0, shape (num_ranks,); None for no limit.
        quantum: samples of a unit, >= 1; the last unit of the batch may be smaller.

    Raises:
        ConfigError: if the caps do not leave room for the batch.
    """
    fixed = np.asarray(fixed_seconds, np.float64)
    slope = np.asarray(sample_seconds, np.float64) * quantum
    units = -(-batch_size // quantum)
    short = units * quantum - batch_size
    most = np.full(fixed.shape, units, np.int64)
    if caps is not None:
        most = np.minimum(most, np.asarray(caps, np.int64) // quantum)
    most[~np.isfinite(fixed)] = 0
    full = units - (short > 0)
    if most.sum() < full:
        raise _no_room(batch_size, caps)
    counts = _fill(full, fixed, slope, most) * quantum
    if short:
        rest = quantum - short
        finish = fixed + (counts + rest) * (slope / quantum)
        if caps is not None:
            finish[counts + rest > np.asarray(caps)] = np.inf
        best = int(np.argmin(finish))
        if not np.isfinite(finish[best]):
            raise _no_room(batch_size, caps)
        counts[best] += rest
    return counts


def finish_seconds(counts: ArrayLike, fixed_seconds: ArrayLike, sample_seconds: ArrayLike) -> float:
    """When the last rank finishes: max over ranks with samples of a_r + b_r n_r; 0 without any."""
    amount = np.asarray(counts)
    times = np.asarray(fixed_seconds) + np.asarray(sample_seconds) * amount
    return float(np.max(times, where=amount > 0, initial=0.0))


def _no_room(batch_size: int, caps: ArrayLike | None) -> ConfigError:
    room = "none" if caps is None else int(np.sum(np.asarray(caps)))
    return ConfigError(
        f"the ranks must have room for the batch (samples: {batch_size}, room: {room})",
        where="data.batch_size",
        hint="lower data.batch_size, or train on more ranks",
    )


def _fill(units: int, fixed: Floats, slope: Floats, most: Counts) -> Counts:
    """Take the `units` smallest slots; `most.sum() >= units`."""
    if units == 0:
        return np.zeros_like(most)
    low, counts = 0.0, np.zeros_like(most)
    high = _reach(units, fixed, slope, most)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if units - int(counts.sum()) <= _HEAP_UNITS or not low < middle < high:
            break
        below = _slots(middle, fixed, slope, most)
        if int(below.sum()) <= units:
            low, counts = middle, below
        else:
            high = middle
    return _take(units - int(counts.sum()), counts, fixed, slope, most)


def _reach(units: int, fixed: Floats, slope: Floats, most: Counts) -> float:
    """A time at which there are enough slots."""
    able = most > 0
    high = float(np.min((fixed + slope)[able]))
    while int(_slots(high, fixed, slope, most).sum()) < units:
        high *= 2
    return high


def _slots(time: float, fixed: Floats, slope: Floats, most: Counts) -> Counts:
    """How many slots of each rank lie at or below `time`, by the very numbers of `_take`."""
    count = np.clip(np.floor((time - fixed) / slope), 0, most).astype(np.int64)
    # the division rounds: the slots themselves decide
    count -= (count > 0) & (fixed + slope * count > time)
    count += (count < most) & (fixed + slope * (count + 1) <= time)
    return count


def _take(units: int, counts: Counts, fixed: Floats, slope: Floats, most: Counts) -> Counts:
    """Add `units` slots, the smallest first, lower ranks first among equals."""
    able = np.flatnonzero(counts < most)
    slots = fixed[able] + slope[able] * (counts[able] + 1)
    heap = list(zip(slots.tolist(), able.tolist(), strict=True))
    heapq.heapify(heap)
    taken = dict.fromkeys(able.tolist(), 0) if units else {}
    for _ in range(units):
        _, rank = heap[0]
        taken[rank] += 1
        count = int(counts[rank]) + taken[rank]
        if count < most[rank]:
            heapq.heapreplace(heap, (float(fixed[rank] + slope[rank] * (count + 1)), rank))
        else:
            heapq.heappop(heap)
    counts[list(taken)] += np.fromiter(taken.values(), np.int64)
    return counts
