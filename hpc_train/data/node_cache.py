"""Blocks that the ranks of a node share: each is read and decoded once, by whoever needs it first.

    rank 0   needs block 7:  claims a slot ----- decodes into it ----- publishes    uses it
    rank 1   needs block 7:                 waits, or reads it itself           ->  uses it

    segment  | table (slots.py) | slot 0: field a, field b | slot 1: field a, field b | ...

What keeps it safe when a rank dies or stops: locks are the kernel's, which gives them back (shm.py:
one for the table, held for microseconds, and one that says that a rank lives); a slot that was
being filled by a rank that died is taken over at once; and whoever waits for a rank that lives and
does not come on, or for the table, reads for itself after a while. A block is in use as long as a
view of it lives, and only what nobody uses is given away.

The memory is that of all ranks' budgets together, or as much as there are blocks. Files that are
mapped need none of this: the ranks of a node share the system's page cache already.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hpc_train.data.cache import Key
from hpc_train.data.routes import Rows
from hpc_train.data.slots import LOADING, READY, Slots, words_of
from hpc_train.shm import Segment, whole_pages

_TABLE = 0  # byte whose lock is that of the table; byte 1 + r is rank r's, locked while it lives
_POLL_SECONDS = 0.0005
_SPIN_SECONDS = 0.00002
_ALIGN = 64


@dataclass(frozen=True)
class Layout:
    """What is where in a segment; the same for all ranks.

    Attributes:
        num_slots, num_ranks: of the table.
        share: how many slots a rank may use at the same time.
        rows: of the largest block.
        fields: name and bytes of a row, of each field that is shared.
    """

    num_slots: int
    num_ranks: int
    share: int
    rows: int
    fields: tuple[tuple[str, int], ...]

    @property
    def table_bytes(self) -> int:
        """Bytes before the first slot."""
        return whole_pages(8 * words_of(self.num_slots, self.num_ranks))

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""
        return slot_bytes(self.rows, dict(self.fields))

    @property
    def size(self) -> int:
        """Bytes of the segment."""
        return self.table_bytes + self.num_slots * self.slot_bytes

    def places(self) -> dict[str, int]:
        """Where each field begins in a slot."""
        found, place = {}, 0
        for name, row_bytes in self.fields:
            found[name] = place
            place += _aligned(self.rows * row_bytes)
        return found


def slot_bytes(rows: int, fields: dict[str, int]) -> int:
    """Bytes of a slot for blocks of `rows` rows, of fields with so many bytes a row."""
    return whole_pages(max(1, sum(_aligned(rows * row_bytes) for row_bytes in fields.values())))


class Lease:
    """A slot in use: until the last view of it is dropped.

    Attributes:
        is_ready: whether the block is in it; else the holder fills it, then calls `publish`, or
            `abandon` if it cannot.
    """

    def __init__(self, cache: NodeCache, slot: int, memory: Rows, *, is_ready: bool) -> None:
        self._cache = cache
        self._slot = slot
        self._memory = memory
        self.is_ready = is_ready

    def rows(self, name: str, count: int) -> Rows | None:
        """The memory of `count` rows of a field, shape (count, bytes of a row); None: not shared.

        Args:
            name: of the field.
            count: at most the rows of the largest block.
        """
        row_bytes = self._cache.row_bytes.get(name)
        if row_bytes is None:
            return None
        first = self._cache.places[name]
        return self._memory[first : first + count * row_bytes].reshape(count, row_bytes)

    def publish(self) -> None:
        """Let the others have the block."""
        self._cache.settle(self._slot, is_filled=True)

    def abandon(self) -> None:
        """Let the others try for themselves."""
        self._cache.settle(self._slot, is_filled=False)


class NodeCache:
    """One rank's side of the segment; safe to use from several threads.

    Args:
        segment: open, all of it reserved, zeros at first; closed by `close`.
        layout: what is where in it.
        rank: of the ranks that share it.
        patience_seconds: how long to wait for a rank that lives, before reading for oneself.

    Raises:
        OSError: if the system has no locks of the kind that this needs.
    """

    def __init__(
        self, segment: Segment, layout: Layout, rank: int, patience_seconds: float = 5.0
    ) -> None:
        self.layout = layout
        self.row_bytes = dict(layout.fields)
        self.places = layout.places()
        self._segment = segment
        self._rank = rank
        self._patience = patience_seconds
        if not segment.try_lock(1 + rank):
            raise OSError("a rank of this number is there already")
        self._bytes = segment.map().data
        table = np.frombuffer(self._bytes[: layout.table_bytes], np.int64)
        self._slots = Slots(table, layout.num_slots, layout.num_ranks)
        self._lock = threading.Lock()
        self._is_closed = False
        self._used: Counter[int] = Counter()  # leases of each slot
        self._dropped: deque[int] = deque()  # slots of which a lease has ended since

    def lease(self, key: Key) -> Lease | None:
        """A slot with the block, or one to fill with it; None if the caller must do without.

        Waits while another rank fills it.
        """
        deadline = time.monotonic() + self._patience
        while True:
            with self._table() as is_locked:
                if not is_locked:
                    return None
                self._give_back()
                slot = self._slots.find(key)
                if slot < 0:
                    return self._claim(key)
                if self._slots.state[slot] == READY:
                    return self._lend(slot, is_ready=True)
                if not self._is_alive(int(self._slots.owner[slot])):
                    self._slots.bury(slot)
                    return self._claim(key)
                sequence = self._slots.sequence[slot]
            if not self._wait(slot, int(sequence), deadline):
                return None

    def settle(self, slot: int, *, is_filled: bool) -> None:
        """The end of filling a slot. Only its owner calls it, so it works without the lock, too."""
        with self._table():
            if self._is_closed:  # the lock of this rank is free: others take the slot over
                return
            if is_filled:
                self._slots.publish(slot)
            else:
                self._slots.abandon(slot)

    def close(self) -> None:
        """Leave; blocks stay for the others, and views of them for their holders.

        From then on nothing is leased, and what is being filled is left to the others.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._segment.unlock(1 + self._rank)  # views keep the file open, and its locks
            self._segment.close()
            # the memory goes with the last view of a block, so not even the table is kept
            self._bytes = memoryview(b"")
            self._slots = _no_slots()

    def _claim(self, key: Key) -> Lease | None:
        if len(self._used) >= self.layout.share:
            return None
        slot = self._slots.claim(key, self._rank)
        return None if slot < 0 else self._lend(slot, is_ready=False)

    def _lend(self, slot: int, *, is_ready: bool) -> Lease | None:
        if slot not in self._used and len(self._used) >= self.layout.share:
            return None
        self._slots.pin(slot, self._rank)
        self._used[slot] += 1
        first = self.layout.table_bytes + slot * self.layout.slot_bytes
        memory = np.frombuffer(self._bytes[first : first + self.layout.slot_bytes], np.uint8)
        # every view of `memory` keeps it alive, as it is no view itself; the end of the last one
        # may come anywhere, also under the lock: so it is only noted
        weakref.finalize(memory, self._dropped.append, slot).atexit = False
        return Lease(self, slot, memory, is_ready=is_ready)

    def _give_back(self) -> None:
        """Unpin what was dropped since."""
        while self._dropped:
            slot = self._dropped.popleft()
            self._used[slot] -= 1
            if not self._used[slot]:
                del self._used[slot]
                self._slots.unpin(slot, self._rank)

    def _wait(self, slot: int, sequence: int, deadline: float) -> bool:
        """Until another rank has filled a slot, or cannot; False if that takes too long."""
        slots = self._slots
        while slots.state[slot] == LOADING and slots.sequence[slot] == sequence:
            if time.monotonic() > deadline:
                return False
            if not self._is_alive(int(slots.owner[slot])):
                return True
            time.sleep(_POLL_SECONDS)
        return True

    def _is_alive(self, owner: int) -> bool:
        """Whether the rank that fills a slot can still do so; a lock of one's own is not seen."""
        return owner == self._rank or self._segment.is_locked(1 + owner)

    @contextmanager
    def _table(self) -> Iterator[bool]:
        """The table, for this thread alone; False if it cannot be had, as after `close`."""
        with self._lock:
            if self._is_closed:
                yield False
                return
            deadline = time.monotonic() + self._patience
            while not (is_locked := self._segment.try_lock(_TABLE)):
                if time.monotonic() > deadline:
                    break
                time.sleep(_SPIN_SECONDS)
            try:
                yield is_locked
            finally:
                if is_locked:
                    self._segment.unlock(_TABLE)


def _no_slots() -> Slots:
    return Slots(np.zeros(words_of(1, 1), np.int64), 1, 1)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
