"""The ledger: what became of each range of the global order. Pure.

    batch 7   [ 0 ............. 24 ............. 40 ............. 64 )
                committed         rank 2 has it     free              (or given back)

A range is handed out to one rank, and then committed or given back; what was given back is handed
out again, first of all. Whatever is done or lost, every sample of a batch is committed exactly once
before the batch is complete. Batches are committed as a whole: in their order, or, where the order
of updates is free, as they are complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hpc_train.plan import Batch, Work


@dataclass
class _Page:
    """One open batch: what of it is free, ascending, who has what, and what is done."""

    batch: Batch
    free: list[tuple[int, int]]
    out: dict[Work, int] = field(default_factory=dict)
    done: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return sum(stop - start for start, stop in self.done) == self.batch.size


class Ledger:
    """The open batches of a run.

    Args:
        start: the first batch that is not closed.
        closed: batches beyond it that are.

    Attributes:
        next: the first batch that is neither closed nor before one that is; all before it are.
        closed: batches beyond `next` that are closed already.
    """

    def __init__(self, start: int = 0, closed: Iterable[int] = ()) -> None:
        self.next = start
        self.closed = set(closed)
        self._pages: dict[int, _Page] = {}

    @property
    def open(self) -> list[int]:
        """The numbers of the open batches, ascending."""
        return sorted(self._pages)

    def begin(self, batch: Batch) -> None:
        """Open a batch: all of it is free.

        Raises:
            ValueError: if it is open or closed.
        """
        if batch.number < self.next or batch.number in self.closed | self._pages.keys():
            raise ValueError(f"a batch is opened once (batch: {batch.number})")
        self._pages[batch.number] = _Page(batch, [(0, batch.size)])

    def batch(self, number: int) -> Batch:
        """An open batch."""
        return self._pages[number].batch

    def free(self, number: int) -> int:
        """How many samples of an open batch nobody has."""
        return sum(stop - start for start, stop in self._pages[number].free)

    def hand_out(self, number: int, size: int, rank: int) -> Work:
        """Give `rank` at most `size` neighbouring samples of an open batch, the first free ones.

        Raises:
            ValueError: if the size is not positive, or nothing is free.
        """
        page = self._pages[number]
        if size < 1 or not page.free:
            raise ValueError(f"batch {number} has nothing to hand out (size: {size})")
        start, stop = page.free[0]
        cut = min(stop, start + size)
        page.free[:1] = [(cut, stop)] if cut < stop else []
        work = Work(page.batch, start, cut)
        page.out[work] = rank
        return work

    def commit(self, work: Work) -> bool:
        """Its holder is done with a range; true if the batch is complete now.

        Raises:
            KeyError: if nobody holds it.
        """
        page = self._pages[work.batch.number]
        del page.out[work]
        page.done.append((work.start, work.stop))
        return page.is_complete

    def give_back(self, work: Work) -> None:
        """A range that its holder will not do is free again.

        Raises:
            KeyError: if nobody holds it.
        """
        page = self._pages[work.batch.number]
        del page.out[work]
        page.free = _joined([*page.free, (work.start, work.stop)])

    def lose(self, rank: int) -> list[Work]:
        """A rank is gone: what it held is free again, and is returned."""
        held = [w for page in self._pages.values() for w, r in page.out.items() if r == rank]
        for work in held:
            self.give_back(work)
        return held

    def held(self, rank: int | None = None) -> list[Work]:
        """The ranges that `rank` has, or that anybody has."""
        pages = self._pages.values()
        return [w for page in pages for w, r in page.out.items() if rank is None or r == rank]

    def is_complete(self, number: int) -> bool:
        """Whether every sample of an open batch is committed."""
        return self._pages[number].is_complete

    def close(self, number: int) -> None:
        """The update of a complete batch is made.

        Raises:
            ValueError: if samples of it are missing.
        """
        if not self._pages[number].is_complete:
            raise ValueError(f"batch {number} is not complete")
        del self._pages[number]
        self.closed.add(number)
        while self.next in self.closed:
            self.closed.remove(self.next)
            self.next += 1

    def state(self) -> dict[str, Any]:
        """All of it as JSON, but who has what: who reads it hands that out again."""
        pages = [
            {
                "batch": [p.batch.number, p.batch.epoch, p.batch.first, p.batch.last],
                "done": [list(one) for one in _joined(p.done)],
            }
            for p in self._pages.values()
        ]
        return {"next": self.next, "closed": sorted(self.closed), "open": pages}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Ledger:
        """The ledger that `state` told of, with nothing handed out."""
        ledger = cls(state["next"], state["closed"])
        for told in state["open"]:
            batch = Batch(*told["batch"])
            done = [(int(start), int(stop)) for start, stop in told["done"]]
            ledger._pages[batch.number] = _Page(batch, _rest(done, batch.size), done=done)
        return ledger


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint ranges in order, neighbours as one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _rest(done: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What of [0, size) is not in the ranges `done`, in order."""
    edges = [(0, 0), *sorted(done), (size, size)]
    gaps = pairwise(edges)
    return [(before[1], after[0]) for before, after in gaps if before[1] < after[0]]
