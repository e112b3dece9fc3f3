"""The sum by MPI's own Allreduce, in place, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

# Open MPI allocates a scratch buffer as large as the message: above some 16 MiB each call pays
# for fresh pages, and its bandwidth halves. The pieces keep the scratch buffer warm.
PIECE_BYTES = 8 * 2**20


class NativeSum:
    """Sum a buffer over all ranks with MPI_Allreduce.

    MPI libraries make no progress between a non-blocking call and its completion unless they are
    called, so `launch` reduces and `finish` only brings the result back to the device.
    """

    def __init__(self, comm: Comm, buffer: torch.Tensor) -> None:
        if not buffer.is_contiguous() or buffer.dim() != 1:
            raise ValueError(f"buffer must be contiguous and flat (shape: {tuple(buffer.shape)})")
        self._comm = comm
        self._buffer = buffer
        self._on_device = buffer.device.type != "cpu"
        host = torch.empty_like(buffer, device="cpu", pin_memory=True) if self._on_device else None
        self._host = buffer if host is None else host
        piece = PIECE_BYTES // buffer.element_size()
        self._pieces = [part.numpy() for part in torch.split(self._host.detach(), piece)]

    def launch(self) -> None:
        """Copy to the host if the buffer lies on a device, and reduce."""
        if self._on_device:
            self._host.copy_(self._buffer)
        if self._comm.world.size > 1:
            for piece in self._pieces:
                self._comm.sum_in_place(piece)

    def finish(self) -> None:
        """Bring the sum back to the device."""
        if self._on_device:
            self._buffer.copy_(self._host, non_blocking=True)
