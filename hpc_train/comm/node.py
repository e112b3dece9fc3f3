"""The ranks of one node: their communicator, their barrier, and the memory that they share.

    share(bytes) of 3 ranks, one segment; common(bytes) is such a segment as one piece:

    | part of local rank 0   | part of local rank 1   | part of local rank 2   |   whole pages each

Every rank maps all of it and reserves its own part. Ranks whose segment cannot be had, on any of
them, agree and do without.
"""

from __future__ import annotations

import logging
import socket
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train import shm
from hpc_train.comm import letters
from hpc_train.shm import part_bytes, part_of, whole_pages

if TYPE_CHECKING:
    from mpi4py import MPI

logger = logging.getLogger(__name__)


def host_key() -> str:
    """What tells this node from others: its host name and the identity of its last boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


@dataclass(frozen=True)
class _Lent:
    """Shared memory behind a tensor: which allocation, where it begins, the ranks' parts."""

    number: int
    address: int
    parts: Sequence[NDArray[np.uint8]]


class Node:
    """The ranks that share this rank's node. All methods but `rank` and `size` are collective.

    Attributes:
        communicator: of these ranks, in the order of their ranks in the job.
        rank: the position of this one, in [0, size).
        size: how many there are.
        barrier: returns once all ranks of the node have called; orders memory.
    """

    def __init__(self, communicator: MPI.Comm) -> None:
        self.communicator = communicator
        self.rank = communicator.Get_rank()
        self.size = communicator.Get_size()
        self.barrier: Callable[[], None] = communicator.Barrier
        self._lent: dict[int, _Lent] = {}
        self._allocations = 0
        self._warned = False

    def share(self, size: int) -> list[NDArray[np.uint8]] | None:
        """Memory of `size` bytes, >= 1, for each rank of the node, filled with zeros.

        Returns:
            The parts of all ranks, shape (size,) each, mapped here; None on all ranks if they
            cannot be had, with a warning from one of them.
        """
        stride = part_bytes(size)
        whole = self._map(stride * self.size, stride - whole_pages(size))
        if whole is None:
            return None
        return [whole[stride * rank : stride * rank + size] for rank in range(self.size)]

    def common(self, size: int) -> NDArray[np.uint8] | None:
        """Memory of `size` bytes, >= 1, that the ranks of the node share as one, zeros.

        Each of them finds memory for a part of it, in the order of their ranks.

        Returns:
            All of it, shape (size,); None on all ranks if it cannot be had, with a warning.
        """
        whole = self._map(whole_pages(size))
        return None if whole is None else whole[:size]

    def _map(self, size: int, gap: int = 0) -> NDArray[np.uint8] | None:
        """A segment of `size` bytes, whole pages; each rank finds memory for its part of it.

        Not for the last `gap` bytes of its part.
        """
        segment, problem = shm.meet(
            size,
            self.rank,
            self.size,
            partial(letters.broadcast, self.communicator),
            partial(letters.gather, self.communicator),
            gap,
        )
        if segment is None:
            self._complain(problem)
            return None
        with segment:
            whole = segment.map()
        # the first touch: pages of one's own part are mapped from here on
        whole[part_of(size, self.rank, self.size, gap)] = 0
        return whole

    def allocate(self, size: int, dtype: torch.dtype) -> torch.Tensor | None:
        """Zeros of shape (size,) that the other ranks of the node can read; None if impossible."""
        if self.size == 1 or size == 0:
            return None
        parts = self.share(size * torch.empty(0, dtype=dtype).element_size())
        self._allocations += 1
        if parts is None:
            return None
        mine = parts[self.rank]
        address = mine.ctypes.data
        self._lent[address] = _Lent(self._allocations, address, parts)
        # the entry holds views of the map, not `mine`: it goes when the last tensor over it does
        own = np.frombuffer(mine, np.uint8)
        weakref.finalize(own, self._lent.pop, address, None).atexit = False
        return torch.from_numpy(own).view(dtype)

    def know(self, other: Node) -> None:
        """Know the memory that `other` lends, now and later: the same ranks once more."""
        self._lent = other._lent

    def peers(self, buffer: torch.Tensor) -> list[torch.Tensor] | None:
        """The same place in the memory of every rank of the node, in their order.

        None on all ranks, unless all ask for the same part of what one `allocate` gave them.
        """
        start = buffer.data_ptr()
        count = buffer.numel() * buffer.element_size()
        around = (
            lent for lent in self._lent.values() if 0 <= start - lent.address < lent.parts[0].size
        )
        found = next(around, None)
        place = [found.number, start - found.address, count] if found else None
        if any(
            other != place or other is None for other in letters.gather(self.communicator, place)
        ):
            return None
        assert found is not None
        at = slice(start - found.address, start - found.address + count)
        return [torch.from_numpy(part[at]).view(buffer.dtype) for part in found.parts]

    def _complain(self, problem: str) -> None:
        if self.rank == 0 and not self._warned:
            logger.warning(
                "shared memory cannot be had in %s (%s): all travels through MPI instead",
                shm.FOLDER,
                problem.lower(),
            )
        self._warned = True
