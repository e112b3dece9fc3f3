"""The nouns that all crafts share: cursor, work, plan, segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True, order=True)
class Cursor:
    """A position in the order: the epoch and the samples of it that are already consumed."""

    epoch: int = 0
    samples: int = 0


@dataclass(frozen=True)
class Batch:
    """Global batch number `number`: samples [first, last) of the order of `epoch`."""

    number: int
    epoch: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.last - self.first


@dataclass(frozen=True)
class Work:
    """One rank's part of one global batch: [start, stop) of its samples in cutting order.

    `reserve` is where samples begin and end that this rank may claim besides, as others may; they
    are read with its own, behind them.
    """

    batch: Batch
    start: int
    stop: int
    reserve: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Number of its own samples; 0 if the rank sits this batch out."""
        return self.stop - self.start

    @property
    def reads(self) -> int:
        """Number of samples that are read for it."""
        return self.size + self.reserve[1] - self.reserve[0]

    def place(self, number: int) -> int:
        """Where sample `number` of those that are read is in the batch."""
        own = self.start + number
        return own if own < self.stop else self.reserve[0] + own - self.stop


def works(start: int, stop: int, size: int) -> Iterator[Work]:
    """Samples [start, stop) of an order, `size` at a time, for one rank alone."""
    for number, first in enumerate(range(start, stop, size)):
        last = min(first + size, stop)
        yield Work(Batch(number, 0, first, last), 0, last - first)


@dataclass(frozen=True)
class Plan:
    """How many samples of a global batch each rank gets, from batch `since` on."""

    counts: tuple[int, ...]
    since: int = 0

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 0 or sum(self.counts) == 0:
            raise ValueError(f"counts must be >= 0 with a positive sum (counts: {self.counts})")

    @cached_property
    def _offsets(self) -> list[int]:
        """Where the share of each rank begins; the end of the last one comes last."""
        return [0, *accumulate(self.counts)]

    def shares(self, batch_size: int) -> tuple[int, ...]:
        """The counts for a global batch of `batch_size` samples, which they sum up to.

        A batch of another size than the plan's (the last of an epoch) is split in the same
        proportion, rounded by largest remainders, lower ranks first.
        """
        total = self._offsets[-1]
        if batch_size == total:
            return self.counts
        floors = [count * batch_size // total for count in self.counts]
        remainders = [count * batch_size % total for count in self.counts]
        ranked = sorted(range(len(floors)), key=lambda r: (-remainders[r], r))
        for rank in ranked[: batch_size - sum(floors)]:
            floors[rank] += 1
        return tuple(floors)

    def work(self, batch: Batch, rank: int) -> Work:
        """What `rank` does of `batch`."""
        offsets = self._offsets
        if batch.size != offsets[-1]:
            offsets = [0, *accumulate(self.shares(batch.size))]
        return Work(batch, offsets[rank], offsets[rank + 1])


@dataclass(frozen=True)
class Segment:
    """The batches [start, stop), by number; at the end all ranks hold equal weights and look up.

    `evaluate` and `save` say what is due at its end, `last` that the run is over with it.
    """

    start: int
    stop: int
    evaluate: bool = False
    save: bool = False
    last: bool = False


@dataclass(frozen=True)
class Course:
    """The whole way of a run: global batches over epochs, as a pure function of four numbers.

    Args:
        num_samples: samples of an epoch, >= 1.
        batch_size: samples of a global batch, >= 1; the last one of an epoch may be smaller.
        start: where the run (or its resumed part) begins.
        start_batch: the number of the batch that begins there.
    """

    num_samples: int
    batch_size: int
    start: Cursor = Cursor()
    start_batch: int = 0

    @property
    def per_epoch(self) -> int:
        """Global batches of a whole epoch."""
        return -(-self.num_samples // self.batch_size)

    @property
    def rest(self) -> int:
        """Global batches from the start to the end of its epoch."""
        return -(-(self.num_samples - self.start.samples) // self.batch_size)

    def end_of(self, epochs: int) -> int:
        """The batch number at which `epochs` epochs (counted from the run's beginning) are done."""
        if epochs <= self.start.epoch:
            return self.start_batch
        return self.start_batch + self.rest + (epochs - self.start.epoch - 1) * self.per_epoch

    def cursor(self, number: int) -> Cursor:
        """The position before batch `number`; an epoch's end is the next one's beginning."""
        ahead = number - self.start_batch
        if ahead < 0:
            raise ValueError(f"batch must be >= {self.start_batch} (batch: {number})")
        if ahead < self.rest:
            return Cursor(self.start.epoch, self.start.samples + ahead * self.batch_size)
        epochs, left = divmod(ahead - self.rest, self.per_epoch)
        return Cursor(self.start.epoch + 1 + epochs, left * self.batch_size)

    def batch(self, number: int) -> Batch:
        """Global batch `number`."""
        here = self.cursor(number)
        last = min(here.samples + self.batch_size, self.num_samples)
        return Batch(number, here.epoch, here.samples, last)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Global batches [start, stop)."""
        return map(self.batch, range(start, stop))

    def ends_epoch(self, number: int) -> bool:
        """Whether `number` batches end exactly with an epoch."""
        return number > 0 and self.cursor(number).samples == 0


@dataclass(frozen=True)
class Every:
    """A period: every `count` batches ("steps") or epochs; a count of 0 means never."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Every:
        """The period that "100 steps", "1 epoch" or "never" names.

        Raises:
            ValueError: if the text is none of these.
        """
        words = text.split()
        if words == ["never"]:
            return cls(0, "steps")
        if len(words) == 2 and words[0].isdigit() and int(words[0]) > 0:
            unit = words[1].rstrip("s") + "s"
            if unit in ("steps", "epochs"):
                return cls(int(words[0]), unit)
        raise ValueError(f'a period must read "N steps", "N epochs" or "never" (value: "{text}")')

    def after(self, number: int, course: Course) -> int | None:
        """The first batch number greater than `number` at which it is due; None if never."""
        if self.count == 0:
            return None
        if self.unit == "steps":
            return (number // self.count + 1) * self.count
        epoch = course.cursor(number).epoch
        return course.end_of((epoch // self.count + 1) * self.count)


def segments(
    course: Course, start: int, end: int, *, evaluate: Every, save: Every
) -> Iterator[Segment]:
    """Cut the batches [start, end) wherever an evaluation or a save is due.

    Both are due at the end of the run as well; nothing is due at `start`.
    """
    while start < end:
        due = {every: every.after(start, course) for every in {evaluate, save}}
        stop = min([end, *(number for number in due.values() if number is not None)])
        yield Segment(
            start,
            stop,
            evaluate=stop in (end, due[evaluate]),
            save=stop in (end, due[save]),
            last=stop == end,
        )
        start = stop
