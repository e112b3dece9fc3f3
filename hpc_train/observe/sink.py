"""What the trainer tells, and to whom: sinks on rank 0 hear of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

Record = dict[str, Any]


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
