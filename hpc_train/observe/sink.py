"""What the trainer tells, and to whom: sinks on rank 0 hear of every step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Record = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """How a run begins.

    Attributes:
        batch, num_batches: global batches already done, and of the whole run.
        epochs: epochs of the whole run; None if its length is given in batches.
        summary: lines for people.
    """

    batch: int
    num_batches: int
    epochs: int | None
    summary: tuple[str, ...]


class Sink(Protocol):
    """Hears what happens in a run; records are JSON documents with a `kind`."""

    def start(self, start: Start) -> None:
        """The run begins, or goes on."""

    def record(self, record: Record) -> None:
        """A step, an evaluation or an event."""

    def close(self) -> None:
        """The run is over."""


class Forgiving:
    """A sink whose stream may break (a full disk, a closed pipe): one warning, then silence.

    Training goes on: what is shown of a run matters less than the run.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._broken = False

    def start(self, start: Start) -> None:
        """The run begins, or goes on."""
        self._try(lambda: self._sink.start(start))

    def record(self, record: Record) -> None:
        """A step, an evaluation or an event."""
        self._try(lambda: self._sink.record(record))

    def close(self) -> None:
        """The run is over."""
        self._try(self._sink.close, always=True)

    def _try(self, call: Callable[[], None], *, always: bool = False) -> None:
        if self._broken and not always:
            return
        try:
            call()
        except OSError as error:
            if not self._broken:
                name = type(self._sink).__name__
                logger.warning("%s cannot be written any more: %s", name, error.strerror)
            self._broken = True
