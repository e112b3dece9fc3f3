"""What every collective gives: an operation on a fixed buffer, launched and finished."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from hpc_train.comm.streams import Behind


class Operation(Protocol):
    """A reduction of one buffer that can be repeated: launch, meanwhile, finish."""

    def launch(self) -> None:
        """Begin; the buffer may not be touched until `finish` has returned."""

    def finish(self) -> None:
        """Return once the buffer holds the sum over all ranks."""


@runtime_checkable
class Marked(Protocol):
    """An operation that another thread may launch than the one that has its buffer computed."""

    def mark(self) -> None:
        """What computes the buffer has been asked for by this thread; `launch` comes behind it."""


class Nothing:
    """The sum over one rank, or of no elements."""

    def launch(self) -> None:
        """Nothing is to be done."""

    def finish(self) -> None:
        """Nothing is left to do."""


class OnDevice:
    """The sum of a buffer on a device, by way of pinned memory of the host.

    Copies go on a stream of their own, so that what computes goes on meanwhile.

    Args:
        operation: sums `host`.
        buffer: shape (n,), on the device.
        host: the same shape and type, on the CPU.
    """

    def __init__(self, operation: Operation, buffer: torch.Tensor, host: torch.Tensor) -> None:
        self._operation = operation
        self._buffer = buffer
        self._host = host
        self._behind = Behind(buffer.device)

    def mark(self) -> None:
        """What computes the buffer has been asked for by this thread."""
        self._behind.mark()

    def launch(self) -> None:
        """Copy to the host, once the buffer is computed, and begin there."""
        with self._behind.stream() as stream:
            self._host.copy_(self._buffer, non_blocking=True)
            stream.synchronize()
        self._operation.launch()

    def finish(self) -> None:
        """Bring the sum back to the device."""
        self._operation.finish()
        with self._behind.stream() as stream:
            self._buffer.copy_(self._host, non_blocking=True)
            stream.synchronize()
