"""Batches copied to a GPU while it computes: from pinned buffers, on a stream of their own.

    reader thread    gather -> pinned buffer --copy on the side stream--> tensors, event
    trainer          takes the batch: the GPU's stream of work waits for the event, no thread does
    reader thread    gathers into the buffer again once the event has passed

Memory that is pinned is copied by the device itself, at the full speed of the bus, and it is
dear to make: the loader uses its buffers again and again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.data import Delivered


class Uploads:
    """Copies the batches of one loader to a device; called by its threads.

    Args:
        device: a GPU.
        streams: makes streams and events and tells of the current ones, as `torch.cuda` does.
    """

    def __init__(self, device: torch.device, streams: Any = torch.cuda) -> None:
        self._device = device
        self._streams = streams
        self._side = streams.Stream(device)

    def __call__(self, arrays: dict[str, NDArray[Any]]) -> Delivered:
        """Begin to copy the arrays, shape (n, ...) each; those of types that torch has."""
        with self._streams.stream(self._side):
            parts = {
                name: torch.from_numpy(array).to(self._device, non_blocking=True)
                for name, array in arrays.items()
                if is_tensor_type(array.dtype)
            }
            copied = self._streams.Event()
            copied.record(self._side)

        def use() -> None:
            current = self._streams.current_stream(self._device)
            current.wait_event(copied)
            for tensor in parts.values():  # else its memory could go to the next copy too early
                tensor.record_stream(current)

        return Delivered(parts, use, copied.synchronize)


def pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array in pinned memory; one in plain memory for types that torch does not have."""
    if not is_tensor_type(dtype):
        return np.empty(shape, dtype)
    like = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=like, pin_memory=True).numpy()


def is_tensor_type(dtype: np.dtype[Any]) -> bool:
    """Whether torch computes with such numbers: of those without sign only with bytes."""
    return dtype.kind != "u" or dtype.itemsize == 1
