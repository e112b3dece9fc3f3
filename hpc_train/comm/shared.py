"""The sum by shared memory, among the ranks of one node; each of them adds up its own slice.

In place, where the buffers of all ranks lie in shared memory (`Comm.allocate`):

               slice 0     slice 1     slice 2
    buffer 0   x0          x0          x0          rank r, slice r, a block of the cache's size at
    buffer 1   x1          x1          x1          a time: x0 += x1, x0 += x2, x1 = x0, x2 = x0
    buffer 2   x2          x2          x2
               rank 0      rank 1      rank 2

The sum and its copies are written while the block is in the cache: memory is read once and written
once. A barrier before (all gradients are there) and one after (all sums are).

Private buffers pass through shared memory in pieces, which stay in the cache. Phase k, for all
pieces k and one barrier each; a is the next piece of the private buffer, in two slots by turns:

    1 copy in     all of piece k of my buffer, but my own slice, to my input slot k % 2
    2 add         piece k-1: my slice of everybody's input slots (k-1) % 2, to my output slot
    3 copy out    piece k-2: everybody's slices, from their output slots k % 2, to my buffer
      barrier

Small private buffers: everyone copies all of it in, one barrier, everyone adds up everything.

One rank computes each element, or all do so in the same order: results are the same to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hpc_train.comm.arithmetic import Field, add_for, copy_for, field
from hpc_train.comm.cut import blocks, per_cache_line, slices
from hpc_train.comm.operation import Operation
from hpc_train.comm.phases import Phase, PhasedSum
from hpc_train.errors import UsageError

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm
    from hpc_train.comm.node import Node

# measured with 1 MiB of second-level cache per core: a block of every rank shall fit in there
_CACHE_BYTES = 512 * 2**10
# a private buffer passes in about so many pieces of at least and at most so many bytes: small ones
# stay in the cache, large ones need fewer barriers, which are dear where others use the cores too
_NUM_PIECES = 16
_PIECE_BYTES = 256 * 2**10
_LARGEST_PIECE_BYTES = 2**20
# up to here one barrier less is worth more than adding up only one's own slice
_SMALL_BYTES = 64 * 2**10


def shared(comm: Comm, buffer: torch.Tensor) -> Operation | None:
    """The sum of `buffer` over the ranks of the only node; None if there is no shared memory.

    Args:
        comm: the ranks, >= 2, all on one node.
        buffer: contiguous, shape (n,), n >= 1, on the CPU, of a type in `arithmetic.DTYPES`.

    Raises:
        UsageError: if the ranks are on several nodes.
    """
    if comm.world.num_nodes > 1:
        raise UsageError(
            f"shared memory does not reach from node to node (nodes: {comm.world.num_nodes})",
            where="comm.collective",
            hint='"hierarchical" uses it in each node, "auto" chooses',
        )
    node = comm.node
    peers = node.peers(buffer)
    if buffer.numel() * buffer.element_size() * (node.size - 1) <= _SMALL_BYTES:
        return _small(node, buffer)
    return _staged(node, buffer) if peers is None else _in_place(node, peers)


def add_slices(node: Node, buffers: list[torch.Tensor], mine: slice) -> Phase:
    """The steps that add the slice `mine` of all buffers up, into the first of them."""
    add = add_for(buffers[0].dtype)
    return [
        (add, (first, other, first))
        for first, others in _cached(node, buffers, mine)
        for other in others
    ]


def copy_slices(node: Node, buffers: list[torch.Tensor], mine: slice) -> Phase:
    """The steps that copy the slice `mine` of the first buffer over that of the others."""
    copy = copy_for(buffers[0].dtype)
    return [
        (copy, (other, first)) for first, others in _cached(node, buffers, mine) for other in others
    ]


def _cached(
    node: Node, buffers: list[torch.Tensor], mine: slice
) -> list[tuple[Field, list[Field]]]:
    """The slice `mine` of the first buffer and of the others, in blocks of the cache's size."""
    length = max(1, _CACHE_BYTES // (node.size * buffers[0].element_size()))
    first, *others = (field(buffer) for buffer in buffers)
    return [(first[at], [other[at] for other in others]) for at in blocks(mine, length)]


def _in_place(node: Node, buffers: list[torch.Tensor]) -> PhasedSum:
    first = buffers[0]
    line = per_cache_line(first.element_size())
    mine = slices(first.numel(), node.size, line)[node.rank]
    length = max(1, _CACHE_BYTES // (node.size * first.element_size()))
    work: Phase = []
    for block in blocks(mine, length):  # the copies at once, while the sum is in the cache
        work += add_slices(node, buffers, block) + copy_slices(node, buffers, block)
    return PhasedSum(node.barrier, [[], work, []])


def _small(node: Node, buffer: torch.Tensor) -> PhasedSum | None:
    """Every rank adds up everything; by turns in two slots.

    A rank that is ahead writes to the other slot, and cannot come back to this one before all
    have passed the next barrier, and so have read this one.
    """
    size = buffer.numel()
    parts = node.share(2 * size * buffer.element_size())
    if parts is None:
        return None
    add, copy, own = add_for(buffer.dtype), copy_for(buffer.dtype), field(buffer)
    turns = []
    for at in (slice(0, size), slice(size, 2 * size)):
        slots = [field(torch.from_numpy(part).view(buffer.dtype))[at] for part in parts]
        sums: Phase = [(add, (slots[0], slots[1], own))]
        sums += [(add, (own, slot, own)) for slot in slots[2:]]
        turns.append([[(copy, (slots[node.rank], own))], sums])
    return PhasedSum(node.barrier, *turns)


def _staged(node: Node, buffer: torch.Tensor) -> PhasedSum | None:
    """A private buffer passes through the cache, in pieces."""
    item = buffer.element_size()
    line = per_cache_line(item)
    even = buffer.numel() * item // _NUM_PIECES
    piece = min(_LARGEST_PIECE_BYTES, max(_PIECE_BYTES, even)) // item
    piece -= piece % line
    slot = slices(piece, node.size, line)[0].stop  # of a rank's output
    parts = node.share(2 * (piece + slot) * item)
    if parts is None:
        return None
    areas = [field(torch.from_numpy(part).view(buffer.dtype)) for part in parts]
    pieces = [
        _Piece(
            node.rank,
            field(buffer)[at],
            slices(at.stop - at.start, node.size, line),
            [area[number % 2 * piece :] for area in areas],
            [area[2 * piece + number % 2 * slot :] for area in areas],
        )
        for number, at in enumerate(blocks(slice(0, buffer.numel()), piece))
    ]
    add, copy = add_for(buffer.dtype), copy_for(buffer.dtype)
    phases: list[Phase] = [[] for _ in range(len(pieces) + 2)]
    for number, one in enumerate(pieces):
        phases[number] += [(copy, pair) for pair in one.inwards()]
        phases[number + 1] += [(add, terms) for terms in one.sums()]
        phases[number + 1] += [(copy, (one.copy, one.total))]
        phases[number + 2] += [(copy, pair) for pair in one.outwards()]
    return PhasedSum(node.barrier, phases)


class _Piece:
    """One piece of a private buffer, with the slots of all ranks that it passes through.

    Attributes:
        total: where the sum of this rank's slice is made.
        copy: where it is copied, so that it is in the private buffer and in the output slot.
    """

    def __init__(
        self,
        rank: int,
        private: Field,
        cuts: list[slice],
        inputs: list[Field],
        outputs: list[Field],
    ) -> None:
        self._private = private
        self._rank = rank
        self._mine = cuts[rank]
        self._cuts = cuts
        self._inputs = inputs
        self._outputs = outputs
        own, slot = private[self._mine], outputs[rank][: self._mine.stop - self._mine.start]
        # adding in place is nearly twice as fast; but the order must be that of ranks, and only
        # the first two terms may be overwritten by their sum
        self.total, self.copy = (own, slot) if rank < 2 else (slot, own)

    def inwards(self) -> list[tuple[Field, Field]]:
        """(to, from): all that others add up."""
        others = (slice(0, self._mine.start), slice(self._mine.stop, self._cuts[-1].stop))
        slot = self._inputs[self._rank]
        return [(slot[at], self._private[at]) for at in others if at.stop > at.start]

    def sums(self) -> list[tuple[Field, Field, Field]]:
        """(one, other, sum), in the order of ranks."""
        terms = [
            (self._private if rank == self._rank else slot)[self._mine]
            for rank, slot in enumerate(self._inputs)
        ]
        total = self.total
        return [(terms[0], terms[1], total), *((total, term, total) for term in terms[2:])]

    def outwards(self) -> list[tuple[Field, Field]]:
        """(to, from): what others have added up."""
        return [
            (self._private[at], slot[: at.stop - at.start])
            for rank, (at, slot) in enumerate(zip(self._cuts, self._outputs, strict=True))
            if rank != self._rank and at.stop > at.start
        ]
