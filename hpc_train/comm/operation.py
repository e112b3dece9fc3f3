"""What every collective gives: an operation on a fixed buffer, launched and finished."""

from __future__ import annotations

from typing import Protocol


class Operation(Protocol):
    """A reduction of one buffer that can be repeated: launch, meanwhile, finish."""

    def launch(self) -> None:
        """Begin; the buffer may not be touched until `finish` has returned."""

    def finish(self) -> None:
        """Return once the buffer holds the sum over all ranks."""
