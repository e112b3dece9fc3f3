"""The sum on GPUs, by NCCL: every rank has a GPU of its own.

    compute      ... gradients of a bucket | the next ones ...
                                    mark --+
    its stream                             wait   NCCL sums      the host polls, and asks MPI

The host waits, not the stream that computes: so what computes goes on behind a bucket that waits
for other ranks, and nothing is left on the device that a rank lost would block for ever.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from hpc_train.comm.auto import key_of
from hpc_train.comm.choice import Choice
from hpc_train.comm.fabric import Fabric
from hpc_train.comm.operation import Operation
from hpc_train.comm.streams import Behind

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

logger = logging.getLogger(__name__)

_REASON = "each rank has a GPU of its own"


class FabricSum:
    """Sum a buffer over all ranks by a process group of torch's.

    Args:
        fabric: the ranks.
        buffer: contiguous, shape (n,), where the fabric's backend sums.
    """

    def __init__(self, fabric: Fabric, buffer: torch.Tensor) -> None:
        self._fabric = fabric
        self._buffer = buffer.detach()
        self._behind = Behind(buffer.device) if buffer.device.type != "cpu" else None
        self._work: Any = None

    def mark(self) -> None:
        """What computes the buffer has been asked for, on this thread's stream."""
        if self._behind is not None:
            self._behind.mark()

    def launch(self) -> None:
        """Begin, behind what computes the buffer."""
        with self._behind.stream() if self._behind is not None else contextlib.nullcontext():
            self._work = self._fabric.sum(self._buffer)

    def finish(self) -> None:
        """Return once the buffer holds the sum over all ranks.

        Raises:
            FabricError: if a rank was lost; `Comm.is_lost` knows it.
        """
        self._fabric.wait(self._work)


def nccl(comm: Comm, buffer: torch.Tensor) -> Operation | None:
    """The sum of a buffer by NCCL; None on all ranks, where it cannot be. Collective."""
    mine = _gpu(buffer)
    told = comm.gather([comm.hosts[comm.world.rank], mine])
    if not have_their_own(told):
        return None
    fabric = comm.fabrics.get("nccl")
    if fabric is None:
        try:
            fabric = comm.fabrics["nccl"] = Fabric(comm, "nccl")
        except RuntimeError as error:
            if comm.world.is_coordinator:
                logger.warning("no NCCL between these ranks, sums go by the host: %s", error)
            return None
    comm.choices[key_of(buffer, lent=False)] = Choice("nccl", _REASON)
    return FabricSum(fabric, buffer)


def have_their_own(told: list[Any]) -> bool:
    """Whether each of [node, GPU or None], one for each rank, names a GPU of its own: pure."""
    return all(gpu for _, gpu in told) and len({tuple(one) for one in told}) == len(told)


def _gpu(buffer: torch.Tensor) -> str | None:
    """The GPU that a buffer lies on; None if NCCL does not sum there."""
    if buffer.device.type != "cuda" or not dist.is_nccl_available():
        return None
    return str(torch.cuda.get_device_properties(buffer.device).uuid)
