"""The snapshot: a copy of tensors in memory on the host that is there before it is needed.

Fresh memory costs a page fault for every 4 KiB of it when it is first written, which takes longer
than the copying itself; so it is asked for once, and touched behind the training.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import torch

from hpc_train.checkpoint.layout import num_bytes, order
from hpc_train.cores import roam
from hpc_train.errors import CheckpointError

_ALIGN_BYTES = 64


class Snapshot:
    """Memory for a copy of `tensors`; another thread makes it ready.

    Args:
        tensors: examples of what will be copied: names, shapes, types and device.

    Attributes:
        on_device: whether some of them lie on a GPU.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._kinds = _kinds(tensors)
        self.on_device = any(tensor.device.type == "cuda" for tensor in tensors.values())
        self._views: dict[str, torch.Tensor] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(
            target=self._allocate, args=(dict(tensors),), name="snapshot", daemon=True
        )
        self._thread.start()

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether names, shapes and types are those that it was made for."""
        return self._kinds == _kinds(tensors)

    def views(self) -> dict[str, torch.Tensor]:
        """The memory of each copy, as a tensor of its shape; waits until it is there.

        Raises:
            CheckpointError: if there is no memory for them.
        """
        self._thread.join()
        if self._error is not None:
            raise CheckpointError(
                f"cannot save a checkpoint: no memory for a copy ({self._error})",
                hint="do without one by checkpoint.asynchronous=false",
            ) from self._error
        return self._views

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy some of the tensors; the copies hold until they are copied again.

        Raises:
            CheckpointError: if there is no memory for them.
        """
        views = self.views()
        with torch.no_grad():
            for name, tensor in tensors.items():
                views[name].copy_(tensor, non_blocking=self.on_device)
        if self.on_device:
            torch.cuda.synchronize()

    def _allocate(self, tensors: dict[str, torch.Tensor]) -> None:
        roam()
        try:
            self._views = self._make_views(tensors)
        except (MemoryError, RuntimeError) as error:  # the latter is torch's
            self._error = error

    def _make_views(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        places: dict[str, int] = {}
        end = 0
        for name in order(tensors):
            places[name] = end
            end += -(-num_bytes(tensors[name]) // _ALIGN_BYTES) * _ALIGN_BYTES
        memory = _touched(end, pinned=self.on_device)
        return {
            name: memory[place : place + num_bytes(tensors[name])]
            .view(tensors[name].dtype)
            .view(tensors[name].shape)
            for name, place in places.items()
        }


def _touched(size: int, *, pinned: bool) -> torch.Tensor:
    """`size` bytes of memory that is really there."""
    if pinned:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    memory = np.empty(size, np.uint8)
    memory.fill(0)  # NumPy's fill starts no further threads, as torch's would
    return torch.from_numpy(memory)


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
