"""What a rank claims of the reserve of each batch, when it is done with what it owns.

    begin      a batch: what is owned, what may be claimed
    pieces     item by item, until there are none for this rank
    finish     nobody waits for this rank to take more

What was claimed stays claimed until the batch is over: who must compute it once more (since it did
not fit into memory, or for the next phase of the task) finds it again. Of a batch that is broken
off since a rank was lost nothing counts, so nothing is lost with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from hpc_train.comm import Comm, open_counter
from hpc_train.plan import Batch, Work
from hpc_train.record import phase
from hpc_train.schedule import Cut, Reserve
from hpc_train.strategies.tally import Tally


class Claims:
    """The claims of one rank.

    Args:
        comm: the ranks.
        reserve: what is left to be claimed of each batch.

    """

    def __init__(self, comm: Comm, reserve: Reserve) -> None:
        self._before = (0, 0, 0.0)  # of the batch before: samples owned, claimed, seconds of those
        self._rank = comm.world.rank
        self._reserve = reserve
        self._counter = open_counter(comm)
        self._number_of = 0
        nothing = (0,) * comm.world.size
        self._cut = Cut(nothing, nothing, (0,))
        self._least = 1
        self._taken: list[int] = []
        self._is_over = True
        self._seconds = 0.0

    def work(self, batch: Batch, shares: Sequence[int]) -> Work:
        """What this rank owns of a batch, and may claim.

        Args:
            batch: any; another thread may ask.
            shares: of all ranks, by plan.
        """
        return self._reserve.cut(shares).work(batch, self._rank)

    def begin(self, shares: Sequence[int]) -> None:
        """A batch begins.

        Args:
            shares: as above.
        """
        claimed = sum(self._size(number) for number in self._taken)
        self._before = self._cut.owned[self._rank], claimed, self._seconds
        cut = self._reserve.cut(shares)
        if cut is not self._cut:
            self._cut, self._least = cut, cut.least_left(self._rank)
        self._taken, self._is_over, self._seconds = [], False, 0.0
        self._number_of += 1
        self._counter.begin(self._number_of)

    def pieces(self, work: Work) -> Iterator[tuple[int, int]]:
        """What is claimed, piece by piece, each to be computed before the next is asked for.

        Args:
            work: of the present batch.

        Yields:
            Where the piece begins and ends among the samples that were read for `work`.
        """
        for number in self._numbers():
            started = time.perf_counter()
            first, last = self._cut.place(number)
            shift = work.size - work.reserve[0]
            yield first + shift, last + shift
            self._seconds += time.perf_counter() - started

    def tell(self, tally: Tally) -> None:
        """What was claimed in the batch before, and what of its busy seconds that took."""
        busy, (owned, claimed, seconds) = tally.busy_seconds, self._before
        if busy == 0:  # told already
            return
        if seconds >= busy:  # which a CPU quota makes of other seconds than those of the clock
            seconds = busy * claimed / (owned + claimed)
        tally.claimed, tally.claimed_seconds = claimed, seconds

    def attend(self) -> None:
        """Let others claim, where this rank must answer them itself."""
        self._counter.attend()

    def finish(self) -> None:
        """Claim no more, and return when the others need no answers any more."""
        if self._number_of and not self._is_over:
            self._ask(0)
        with phase("waiting", operation="claims"):
            self._counter.settle()

    def close(self) -> None:
        """Answer nobody any more; not collective."""
        self._counter.close()

    @property
    def largest(self) -> int:
        """Samples of the largest item of the present batch."""
        return max(map(self._size, range(self._cut.num_items)), default=0)

    def _numbers(self) -> Iterator[int]:
        """The items that were taken, then those that are taken now."""
        yield from tuple(self._taken)
        while not self._is_over:
            number = self._ask(self._cut.num_items)
            if number is not None:
                self._taken.append(number)
                yield number

    def _ask(self, total: int) -> int | None:
        with phase("communication", operation="claim"):
            number = self._counter.take(self._number_of, total, self._least)
        self._is_over = number is None
        return number

    def _size(self, number: int) -> int:
        first, last = self._cut.place(number)
        return last - first
