"""Progress for people: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from hpc_train.observe.sink import Record, Start

_LIVE_SECONDS = 0.1
_PLAIN_SECONDS = 5.0
_BAR = 24


class Progress:
    """Shows how far a run is, how well it does, how fast it is, and when it will be done.

    Args:
        stream: where to write; standard output by default.
        columns: width of the terminal behind it, 0 if there is none.
    """

    def __init__(self, stream: TextIO | None = None, columns: int | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._columns = terminal_columns() if columns is None else columns
        self._colour = self._columns > 0 and not os.environ.get("NO_COLOR")
        self._shown = time.monotonic()
        self._start = Start(0, 1, None, ())
        self._rate = 0.0
        self._live = False

    def start(self, start: Start) -> None:
        """Show the summary."""
        self._start = start
        for line in start.summary:
            self._line(line)
        self._began = self._shown = time.monotonic()

    def record(self, record: Record) -> None:
        """Show a step now and then, evaluations and events always."""
        if record["kind"] == "step":
            self._step(record)
        elif record["kind"] == "evaluation":
            values = "  ".join(f"{k} {v:.4f}" for k, v in record["metrics"].items())
            self._line(f"epoch {record['epoch']:.4g}  {record['data']:<10}  {values}", "green")
        elif record.get("text"):
            self._line(record["text"])

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._erase()
        self._stream.flush()

    def _step(self, record: Record) -> None:
        rate = record["samples_per_second"]
        self._rate = rate if self._rate == 0 else 0.98 * self._rate + 0.02 * rate
        now = time.monotonic()
        if now - self._shown < (_LIVE_SECONDS if self._columns else _PLAIN_SECONDS):
            return
        self._shown = now
        start, done = self._start, record["batch"]
        left = (now - self._began) / max(1, done - start.batch) * (start.num_batches - done)
        metrics = "".join(f"  {k} {_number(v)}" for k, v in record["metrics"].items())
        balance = f"balance {record['balance']:.0%}  " if "balance" in record else ""
        epoch = f"epoch {record['epoch'] + 1}" + (f"/{start.epochs}" if start.epochs else "")
        text = (
            f"{epoch}  step {done}/{start.num_batches}  loss {record['loss']:.4f}{metrics}  "
            f"{self._rate:,.0f} samples/s  {balance}ETA {clock(left)}"
        )
        if not self._columns:
            self._line(text)
            return
        filled = _BAR * done // start.num_batches
        bar = "━" * filled + " " * (_BAR - filled)
        self._live = True
        shown = f"{bar} {text}"[: self._columns - 1]
        self._stream.write("\r\x1b[K" + (f"\x1b[36m{shown}\x1b[0m" if self._colour else shown))
        self._stream.flush()

    def _line(self, text: str, colour: str = "") -> None:
        self._erase()
        if colour == "green" and self._colour:
            text = f"\x1b[32m{text}\x1b[0m"
        self._stream.write(text + "\n")
        self._stream.flush()

    def _erase(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._live = False


def _number(value: float) -> str:
    """A metric: counts as such, others with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def terminal_columns() -> int:
    """The width of the terminal behind standard output; 0 if there is none.

    Under a launcher, rank 0 writes into a pipe: who started it says how wide its terminal is.
    """
    told = os.environ.get("HPC_TRAIN_TERMINAL", "")
    if told.isdigit():
        return int(told)
    return os.get_terminal_size().columns if sys.stdout.isatty() else 0


def clock(seconds: float) -> str:
    """`seconds` as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
