"""The wish to save and leave: SIGUSR1, the only signal that every launcher passes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Raised by the signal; the tally carries it, so all ranks leave in the same step."""

    def __init__(self) -> None:
        self.is_set = False

    @contextmanager
    def on_signal(self) -> Iterator[StopFlag]:
        """Let SIGUSR1 raise this flag, while the block lasts; in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGUSR1, self._raise)
        try:
            yield self
        finally:
            signal.signal(signal.SIGUSR1, before)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        # nothing but a flag: a handler may run anywhere
        self.is_set = True
