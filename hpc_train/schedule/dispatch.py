"""Handing out ranges of global batches to whoever is free: a pure state machine over the ledger.

    staleness 2: batches t .. t+2 may be open at a time     t is the oldest one without its update
                                                            c: committed, .: free, 0 1 2: who has it
    t      c c c c c 2 2 2
    t+1    0 0 0 1 1 c c c
    t+2    0 0 0 . . . . .
    t+3    not begun until the update of t is made

A range of batch u is handed out once the updates of all batches up to u - 1 - s are made, and they
are made in the order of batches: so its gradient is taken at weights that lack s updates at the
most (stale synchronous parallel: Ho et al., "More effective distributed ML via a stale synchronous
parallel parameter server", NIPS 2013). s = 0 is synchronous training. Without a bound, the update
of a batch is made as soon as the batch is complete, whatever its number.

A rank gets as much of a batch as it does while all others do theirs: the batch is cut in proportion
to speed. What is left at the end, when no batch can be begun any more, goes by list scheduling: a
slow rank does not take what a fast one, still busy, would finish earlier.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

from hpc_train.plan import Batch, Work
from hpc_train.schedule.ledger import Ledger
from hpc_train.schedule.listing import next_rank

_FORGETTING = 0.3  # weight of the last range in what is known of a rank's pace


class Dispatcher:
    """Decides who gets which range.

    Args:
        shares: relative share of a batch of each rank that works, by rank, > 0.
        staleness: how many updates a gradient may lack, >= 0; None for no bound.
        measures: whether shares follow the measured speeds, once all are known.
        quantum: ranges are multiples of so many samples, but for the last of a batch, >= 1.

    Attributes:
        ledger: what became of each range.
        pace: measured seconds per sample, by rank.
    """

    def __init__(
        self,
        shares: Mapping[int, float],
        staleness: int | None,
        *,
        measures: bool = True,
        quantum: int = 1,
    ) -> None:
        self.ledger = Ledger()
        self.pace: dict[int, float] = {}
        self._shares = dict(shares)
        self._staleness = staleness
        self._measures = measures
        self._quantum = quantum
        self._batches: Iterator[Batch] = iter(())
        self._next: Batch | None = None
        self._free_at = dict.fromkeys(shares, 0.0)

    def begin(self, batches: Iterator[Batch], done: Collection[int] = ()) -> None:
        """Take up the next batches of the course, in their order; none may be open.

        Args:
            batches: the first one has no update yet.
            done: the numbers of those among them that have.
        """
        if self.ledger.open:
            raise ValueError(f"batches are open still (batches: {self.ledger.open})")
        self._batches = (batch for batch in batches if batch.number not in done)
        self._next = next(self._batches, None)
        if self._next is not None:
            self.ledger = Ledger(self._next.number, done)

    def close(self) -> None:
        """Begin no further batch, but for those before one that has its update already."""
        last, due = max(self.ledger.closed, default=-1), []
        while self._next is not None and self._next.number < last:
            due.append(self._next)
            self._next = next(self._batches, None)
        self._batches = iter(due)
        self._next = next(self._batches, None)

    @property
    def is_over(self) -> bool:
        """Whether all batches that were begun have their updates, and none will be begun."""
        return self._next is None and not self.ledger.open

    def ask(self, rank: int, now: float) -> Work | None:
        """What `rank`, which is free, shall do; None if it must wait until something happens.

        Args:
            rank: one of those that work.
            now: a monotonic clock, in seconds.
        """
        number = next((n for n in self.ledger.open if self.ledger.free(n)), None)
        if number is None:
            number = self._open()
        if number is None:
            return None
        size = min(self._size(rank, number), self.ledger.free(number))
        if self._leaves_it(rank, size, now):
            return None
        work = self.ledger.hand_out(number, size, rank)
        self._free_at[rank] = now + self.pace.get(rank, 0.0) * work.size
        return work

    def done(self, rank: int, work: Work, seconds: float) -> None:
        """A range is committed by `rank`, which was busy with it for `seconds`."""
        self.ledger.commit(work)
        measured = seconds / work.size
        known = self.pace.get(rank, measured)
        self.pace[rank] = known + _FORGETTING * (measured - known)

    def lose(self, rank: int) -> None:
        """A rank will do no more: what it had is free again, and its share goes to the others."""
        self.ledger.lose(rank)
        self._shares.pop(rank)

    def ready(self) -> int | None:
        """The batch whose update may be made now; None if there is none."""
        if self._staleness is not None:
            first = self.ledger.next
            found = first in self.ledger.open and self.ledger.is_complete(first)
            return first if found else None
        return next((n for n in self.ledger.open if self.ledger.is_complete(n)), None)

    def updated(self, number: int) -> None:
        """The update of a batch is made."""
        self.ledger.close(number)

    def _open(self) -> int | None:
        batch = self._next
        if batch is None:
            return None
        if self._staleness is not None and batch.number > self.ledger.next + self._staleness:
            return None
        self.ledger.begin(batch)
        self._next = next(self._batches, None)
        return batch.number

    def _size(self, rank: int, number: int) -> int:
        """The part of a batch that is this rank's by speed, rounded up to the quantum."""
        shares = self._shares
        if self._measures and self.pace.keys() >= shares.keys():
            shares = {r: 1.0 / max(self.pace[r], 1e-9) for r in shares}
        size = self.ledger.batch(number).size * shares[rank] / sum(shares.values())
        return max(1, math.ceil(size / self._quantum - 1e-9)) * self._quantum

    def _leaves_it(self, rank: int, size: int, now: float) -> bool:
        """Whether a rank that is busy would finish the last of the work before `rank` would."""
        if self._next is not None or not self._measures or not self.ledger.held():
            return False
        if not self.pace.keys() >= self._shares.keys():
            return False
        ranks = list(self._shares)
        free = [max(now, self._free_at[r]) if self.ledger.held(r) else now for r in ranks]
        chosen = ranks[next_rank(free, [self.pace[r] for r in ranks], size)]
        return bool(self.ledger.held(chosen))


def simulate(
    durations: Sequence[Sequence[float]], num_batches: int, staleness: int | None
) -> list[float]:
    """When the update of each batch is made, if sending costs nothing.

    Args:
        durations: seconds that each rank takes for its k-th range, which is 1/p of a batch, shape
            (num_ranks, at least as many ranges as it gets; repeated beyond).
        num_batches: how many batches there are.
        staleness: as of `Dispatcher`; 0 gives synchronous training, the largest of each batch.

    Returns:
        Seconds from the start, shape (num_batches,).
    """
    ranks = range(len(durations))
    dispatcher = Dispatcher(dict.fromkeys(ranks, 1.0), staleness, measures=False)
    size = len(durations)
    dispatcher.begin(Batch(n, 0, n * size, (n + 1) * size) for n in range(num_batches))
    turns = [count() for _ in ranks]
    busy: dict[int, tuple[float, Work]] = {}
    now, made = 0.0, [0.0] * num_batches
    while not dispatcher.is_over:
        for rank in ranks:
            work = None if rank in busy else dispatcher.ask(rank, now)
            if work is not None:
                seconds = durations[rank][next(turns[rank]) % len(durations[rank])]
                busy[rank] = now + seconds, work
        rank = min(busy, key=lambda r: (busy[r][0], r))
        now, work = busy.pop(rank)
        dispatcher.done(rank, work, 0.0)
        while (number := dispatcher.ready()) is not None:
            dispatcher.updated(number)
            made[number] = now
    return made
