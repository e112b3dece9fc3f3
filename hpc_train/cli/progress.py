"""Progress of a command: a live bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

_LIVE_SECONDS = 0.1
_PLAIN_SECONDS = 5.0
_BAR = 24


class Bar:
    """Shows on standard error how much of `total` is done; call it with the number done so far.

    Args:
        what: what is counted, such as "samples".
        stream: where to write, in place of standard error.
        columns: width of the terminal behind it, 0 if there is none.
    """

    def __init__(
        self, total: int, what: str, stream: TextIO | None = None, columns: int | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._columns = _columns(self._stream) if columns is None else columns
        self._colour = self._columns > 0 and not os.environ.get("NO_COLOR")
        self._total, self._what = max(1, total), what
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._columns:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown < (_LIVE_SECONDS if self._columns else _PLAIN_SECONDS):
            return
        self._shown = now
        rate = done / (now - self._began)
        left = (self._total - done) / rate if rate else 0
        text = f"{done:,}/{self._total:,} {self._what}  {rate:,.0f}/s  ETA {_clock(left)}"
        if not self._columns:
            self._stream.write(text + "\n")
        else:
            bar = "━" * (_BAR * done // self._total)
            shown = f"{bar:<{_BAR}} {text}"[: self._columns - 1]
            self._stream.write("\r\x1b[K" + (f"\x1b[36m{shown}\x1b[0m" if self._colour else shown))
        self._stream.flush()


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that what was begun is cleaned up."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"
