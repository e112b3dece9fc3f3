"""Memory for blocks: slots of equal size in one piece, from which many are gathered at once.

    slot 0               slot 1               slot 2
    | block, rows of it  | free               | block ...        rows of all slots count through

Pages are taken when they are first touched, huge ones where the system has them. A slot is free
again as soon as the last view of it is dropped, and the one that was freed last is the next to be
used: so no more memory is taken than blocks were held at the same time.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np

from hpc_train.data.routes import Rows
from hpc_train.data.routes.mapping import huge_pages


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
        size = num_slots * self._slot_bytes
        self._bytes = memoryview(huge_pages(size))[:size]
        self.whole = np.frombuffer(self._bytes, np.uint8)
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
