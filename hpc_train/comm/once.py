"""The sum of what the ranks of a node have, which lies there once: in the buffer of the first one.

               slice 0     slice 1     slice 2
    buffer 0   sum         sum         sum         rank r, slice r, a block of the cache's size at
    buffer 1   x1          x1          x1          a time: x0 += x1, x0 += x2
    buffer 2   x2          x2          x2
               rank 0      rank 1      rank 2

    launch     barrier (all buffers are there)     each adds up its slice; a look at each block
    finish     barrier (all of the sum is there)   every rank reads it where it lies
    release    barrier (nobody reads any more)     buffers may be written again

Each rank maps the first buffer as one piece, so nobody copies: of n buffers as long as the sum, n
are read and one is written. In place (`shared`), the sum is written n times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hpc_train.comm.arithmetic import Field, add_for, field
from hpc_train.comm.cut import blocks, per_cache_line, portions

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm
    from hpc_train.comm.node import Node

# of one buffer: two of them, and what looks at the sum, fit into 1 MiB of second-level cache
_BLOCK_BYTES = 256 * 2**10


def sum_once(
    comm: Comm, buffers: Sequence[torch.Tensor], look: Callable[[torch.Tensor], Any] | None = None
) -> SumOnce | None:
    """The sums of `buffers` over the ranks, where these share one memory; collective.

    Args:
        comm: the ranks.
        buffers: each in memory of `comm.allocate`, contiguous, shape (n,), n >= 1, of a type in
            `arithmetic.DTYPES`.
        look: is given each block of this rank's slices, as soon as it is summed and while it is in
            the cache.

    Returns:
        The operation; None on all ranks, where they are on several nodes, or have no such memory.
    """
    if comm.world.num_nodes > 1 or comm.node.size == 1:
        return None
    peers = [comm.node.peers(buffer) for buffer in buffers]
    found = [one for one in peers if one is not None]
    return SumOnce(comm.node, found, look) if len(found) == len(peers) else None


class SumOnce:
    """Sums that lie once in a node.

    Args:
        node: the ranks.
        buffers: of each sum, those of all ranks, in their order.
        look: is given each block that this rank has summed.

    Attributes:
        totals: where the sums lie, as this rank maps them; after `finish` and until `release`.
        slices: of each sum, those of all ranks; equal ones until `cut`.
    """

    def __init__(
        self,
        node: Node,
        buffers: Sequence[list[torch.Tensor]],
        look: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        self._node, self._buffers, self._look = node, buffers, look
        self.totals = [one[0] for one in buffers]
        self.cut([1] * node.size)

    def cut(self, weights: Sequence[int]) -> None:
        """New slices, in proportion to `weights`, one for each rank, at least one above 0."""
        self.slices = [
            portions(one.numel(), weights, per_cache_line(one.element_size()))
            for one in self.totals
        ]
        self._work: list[tuple[Any, Field, list[Field], torch.Tensor]] = []
        for all_slices, (total, *others) in zip(self.slices, self._buffers, strict=True):
            add, length = add_for(total.dtype), _BLOCK_BYTES // total.element_size()
            for at in blocks(all_slices[self._node.rank], length):
                terms = [field(other[at]) for other in others]
                self._work.append((add, field(total[at]), terms, total[at]))

    def launch(self, *, assembled: bool = False) -> None:
        """Add up this rank's slices, when all have come here; at once where all are `assembled`.

        Who has no slice need not come then.
        """
        if not assembled:
            self._node.barrier()
        look = self._look
        for add, total, terms, block in self._work:
            for term in terms:
                add(total, term, total)
            if look is not None:
                look(block)

    def finish(self) -> None:
        """Return once `totals` hold the sums."""
        self._node.barrier()

    def release(self) -> None:
        """Return once no rank reads `totals` any more: buffers may be written again."""
        self._node.barrier()
