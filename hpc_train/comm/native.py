"""The sum by MPI's own Allreduce, in place, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

DTYPES = (torch.float32, torch.float64)

# Open MPI allocates a scratch buffer as large as the message: above some 16 MiB each call pays
# for fresh pages, and its bandwidth halves. The pieces keep the scratch buffer warm.
PIECE_BYTES = 8 * 2**20


class NativeSum:
    """Sum a buffer over all ranks with MPI_Allreduce.

    MPI libraries make no progress between a non-blocking call and its completion unless they are
    called, so `launch` reduces and nothing is left for `finish`.

    Args:
        comm: the ranks.
        buffer: contiguous, shape (n,), on the CPU, of a type in `DTYPES`.
        piece_bytes: most that is reduced by one call.
    """

    def __init__(self, comm: Comm, buffer: torch.Tensor, piece_bytes: int = PIECE_BYTES) -> None:
        piece = piece_bytes // buffer.element_size()
        pieces = torch.split(buffer.detach(), piece) if buffer.numel() else ()
        self._calls = comm.sums([part.numpy() for part in pieces])

    def launch(self) -> None:
        """Reduce."""
        for allreduce, inputs, outputs in self._calls:
            allreduce(inputs, outputs)

    def finish(self) -> None:
        """Nothing is left to do."""
