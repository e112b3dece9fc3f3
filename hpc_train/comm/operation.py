"""What every collective gives: an operation on a fixed buffer, launched and finished."""

from __future__ import annotations

from typing import Protocol

import torch


class Operation(Protocol):
    """A reduction of one buffer that can be repeated: launch, meanwhile, finish."""

    def launch(self) -> None:
        """Begin; the buffer may not be touched until `finish` has returned."""

    def finish(self) -> None:
        """Return once the buffer holds the sum over all ranks."""


class Nothing:
    """The sum over one rank, or of no elements."""

    def launch(self) -> None:
        """Nothing is to be done."""

    def finish(self) -> None:
        """Nothing is left to do."""


class OnDevice:
    """The sum of a buffer on a device, by way of pinned memory of the host.

    Args:
        operation: sums `host`.
        buffer: shape (n,), on the device.
        host: the same shape and type, on the CPU.
    """

    def __init__(self, operation: Operation, buffer: torch.Tensor, host: torch.Tensor) -> None:
        self._operation = operation
        self._buffer = buffer
        self._host = host

    def launch(self) -> None:
        """Copy to the host, waiting for the device, and begin there."""
        self._host.copy_(self._buffer)
        self._operation.launch()

    def finish(self) -> None:
        """Bring the sum back to the device."""
        self._operation.finish()
        self._buffer.copy_(self._host, non_blocking=True)
