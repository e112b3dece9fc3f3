"""Memory for blocks: slots of equal size in one piece, from which many are gathered at once.

    slot 0               slot 1               slot 2
    | block, rows of it  | free               | block ...        rows of all slots count through

Pages are taken when they are first touched, huge ones where the system has them. A slot is free
again as soon as the last view of it is dropped, and the one that was freed last is the next to be
used: so no more memory is taken than blocks were held at the same time.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref
from collections import deque

import numpy as np

from hpc_train.data.routes import Rows

_NO_RESERVE = 0x4000  # mmap: memory that is never touched is not counted


class Arena:
    """The slots of one field; safe to use from several threads.

    Args:
        slot_rows: rows of the largest block.
        row_bytes: >= 1.
        num_slots: >= 1.

    Attributes:
        whole: all bytes, shape (num_slots * slot_rows * row_bytes,).

    Raises:
        OSError: if the system refuses so much address space.
    """

    def __init__(self, slot_rows: int, row_bytes: int, num_slots: int) -> None:
        self._row_bytes = row_bytes
        self._slot_bytes = slot_rows * row_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        pages = mmap.mmap(-1, num_slots * self._slot_bytes, flags=flags)
        with contextlib.suppress(OSError, AttributeError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        self._bytes = memoryview(pages)
        self.whole = np.frombuffer(pages, np.uint8)
        self._lock = threading.Lock()
        self._free = deque(range(num_slots))
        self._dropped: deque[int] = deque()  # appended to wherever the last view is dropped

    def rows(self, count: int) -> Rows | None:
        """A slot's first `count` rows, shape (count, row_bytes); None if no slot is free."""
        with self._lock:
            while self._dropped:
                self._free.appendleft(self._dropped.popleft())
            if not self._free:
                return None
            slot = self._free.popleft()
        first = slot * self._slot_bytes
        memory = np.frombuffer(self._bytes[first : first + count * self._row_bytes], np.uint8)
        # every view of `memory` keeps it alive, as it is no view itself
        weakref.finalize(memory, self._dropped.append, slot).atexit = False
        return memory.reshape(count, self._row_bytes)
