"""Streams of a device on which sums are made, behind what computes a buffer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


class Behind:
    """A stream of its own for one buffer: what is done on it waits for what computes the buffer.

    The thread that computes calls `mark`, whichever thread does the rest; else the rest waits for
    all that its own thread has asked the device for until then.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._is_marked = False

    def mark(self) -> None:
        """The buffer is computed by what this thread has asked the device for until now."""
        self._ready.record(torch.cuda.current_stream(self._device))
        self._is_marked = True

    @contextlib.contextmanager
    def stream(self) -> Iterator[torch.cuda.Stream]:
        """The stream, as the current one, once what was marked is through."""
        if not self._is_marked:
            self.mark()
        self._is_marked = False
        self._own.wait_event(self._ready)
        with torch.cuda.stream(self._own):
            yield self._own
