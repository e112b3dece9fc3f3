"""Phases: what this rank is doing right now, announced by the crafts, heard by whoever asks.

    with phase("communication", bytes=n):   every hook is entered before and left after the block
        comm.sum(buffer)

Nobody listens by default and a phase then costs well under a microsecond. Stopwatches, traces,
watchdogs and fault injection are hooks. Inside a phase, `operation` says what is about to be done
together with other ranks: all ranks name the same operations in the same order.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

Leave = Callable[[], None]
Hook = Callable[[str, dict[str, Any]], Leave]

Listener = Callable[[str, int, int], None]

# every name that a phase of the package has; what ranks do in the last two is wait for others
PHASES = (
    "data",
    "play",
    "compute",
    "update",
    "schedule",
    "evaluate",
    "checkpoint",
    "recovery",
    "communication",
    "waiting",
)

_hooks: list[Hook] = []
_listeners: list[Listener] = []


@contextmanager
def listening(hook: Hook) -> Iterator[None]:
    """Call `hook(name, detail)` at the start of every phase, and what it returns at the end."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


@contextmanager
def hearing(listener: Listener) -> Iterator[None]:
    """Call `listener(name, bytes, peer)` at every operation."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def operation(name: str, num_bytes: int = 0, peer: int = -1) -> None:
    """Announce an operation with other ranks, just before it begins.

    Args:
        name: such as "gather".
        num_bytes: how much this rank gives or gets, 0 if that is not worth saying.
        peer: the rank that it is about, such as a root; -1 for all.
    """
    for listener in _listeners:
        listener(name, num_bytes, peer)


class phase:  # noqa: N801 - reads as a statement
    """A named stretch of work of this thread; `detail` says what it is about."""

    __slots__ = ("_detail", "_leave", "_name")

    def __init__(self, name: str, **detail: Any) -> None:
        self._name = name
        self._detail = detail

    def __enter__(self) -> None:
        self._leave: list[Leave] = []
        try:
            for hook in _hooks:
                self._leave.append(hook(self._name, self._detail))
        except BaseException:
            # what was entered is left, as if the block itself had raised
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for leave in reversed(self._leave):
            leave()


class Stopwatch:
    """A hook that adds up the seconds of each phase of the thread that made it.

    Phases do not nest in meaning: an inner phase's seconds are taken from the outer one's.

    Attributes:
        seconds: of each phase, since the last `take`.
        elapsed_seconds: between the last two calls of `take`.
        cpu_seconds: CPU time of the whole process between them, less what this thread had of it
            while it waited for other ranks.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.elapsed_seconds = self.cpu_seconds = 0.0
        self._thread = threading.get_ident()
        self._inner = [0.0]
        self._waiting_cpu = 0.0
        self._since, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self, name: str, detail: dict[str, Any]) -> Leave:
        if threading.get_ident() != self._thread:
            return _nothing
        waits = name == "waiting"
        cpu = time.thread_time() if waits else 0.0
        started = time.perf_counter()
        self._inner.append(0.0)

        def leave() -> None:
            elapsed = time.perf_counter() - started
            self.seconds[name] += elapsed - self._inner.pop()
            self._inner[-1] += elapsed
            if waits:
                self._waiting_cpu += time.thread_time() - cpu

        return leave

    def take(self) -> dict[str, float]:
        """The seconds of each phase since the last call."""
        since, cpu = self._since, self._cpu
        self._since, self._cpu = time.perf_counter(), time.process_time()
        self.elapsed_seconds = self._since - since
        self.cpu_seconds = self._cpu - cpu - self._waiting_cpu
        self._waiting_cpu = 0.0
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds


def _nothing() -> None:
    """Leave a phase that nobody timed."""
