"""The sum in three phases: in each node by shared memory, between nodes by rings, in each node.

              node 0              node 1
    rank      0     1     2       3     4
    slice     s0    s1    s2      s0    s1        1 add    its slice of all ranks of the node
    lane      l0    l1    -       l0    l1        2 ring   0 <-> 3 on lane 0, 1 <-> 4 on lane 1
    slice     s0    s1    s2      s0    s1        3 copy   the sum, to all ranks of the node

Where slices are lanes (node 1 here, and all nodes if they are of one size), the rank of a lane adds
and copies while the ring goes on: a segment is added up just before it is first needed, and copied
as soon as it is complete, so that the network never waits for the memory.

A node cuts the buffer into as many slices as it has ranks; between nodes it is cut into as many
lanes as the smallest node has ranks, so that all of a node's network is busy, and each byte leaves
a node 2(N-1)/N times for N nodes: the least there is. The node's sum lies in the place of its
first rank. Private buffers are copied to shared memory before, and back afterwards, in pieces.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

from hpc_train.comm.arithmetic import copy_for, field
from hpc_train.comm.cut import blocks, per_cache_line, slices
from hpc_train.comm.phases import Phase, PhasedSum
from hpc_train.comm.ring import BETWEEN_NODES, RingSum
from hpc_train.comm.shared import add_slices, copy_slices

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpc_train.comm.communicator import Comm
    from hpc_train.comm.node import Node

_PIECE_BYTES = 16 * 2**20


def hierarchical(comm: Comm, buffer: torch.Tensor) -> PhasedSum | None:
    """The sum of `buffer` over all ranks; None if a node has no shared memory.

    Args:
        comm: the ranks, any number on any number of nodes.
        buffer: contiguous, shape (n,), n >= 1, on the CPU, of a type in `arithmetic.DTYPES`.
    """
    node = comm.node
    peers = [buffer] if node.size == 1 else node.peers(buffer)
    in_place = all(comm.gather(peers is not None))
    length = (
        buffer.numel() if in_place else min(buffer.numel(), _PIECE_BYTES // buffer.element_size())
    )
    slots = peers if in_place else _slots(comm, length, buffer.dtype)
    if not all(comm.gather(slots is not None)):
        return None
    assert slots is not None
    copy = copy_for(buffer.dtype)
    phases: list[Phase] = []
    for place in blocks(slice(0, buffer.numel()), length):
        places = [slot[: place.stop - place.start] for slot in slots]
        own, slot = field(buffer[place]), field(places[node.rank])
        inwards: Phase = [] if in_place else [(copy, (slot, own))]
        outwards: Phase = [] if in_place else [(copy, (own, field(places[0])))]
        phases += [inwards, *_phases(comm, places, everywhere=in_place), outwards]
    return PhasedSum(node.barrier, [*phases, []])


def _slots(comm: Comm, length: int, dtype: torch.dtype) -> list[torch.Tensor] | None:
    """Shared memory for a piece of every rank of the node."""
    size = length * torch.empty(0, dtype=dtype).element_size()
    parts = comm.node.share(size)
    return None if parts is None else [torch.from_numpy(part).view(dtype) for part in parts]


def _phases(comm: Comm, places: list[torch.Tensor], *, everywhere: bool) -> list[Phase]:
    """Add, ring, and, with `everywhere`, copy the sum to the other places."""
    node, first = comm.node, places[0]
    line = per_cache_line(first.element_size())
    mine = slices(first.numel(), node.size, line)[node.rank]
    lanes = slices(first.numel(), min(Counter(comm.world.nodes).values()), line)
    communicator = comm.lanes()
    if len(lanes) == node.size and comm.world.num_nodes > 1:
        return [_interleaved(communicator, node, places, mine, everywhere=everywhere)]
    ring: Phase = []
    if node.rank < len(lanes):
        lane = first[lanes[node.rank]]
        ring = [(RingSum(communicator, lane, BETWEEN_NODES).launch, ())]
    copies = copy_slices(node, places, mine) if everywhere else []
    return [add_slices(node, places, mine), ring, copies]


def _interleaved(
    communicator: MPI.Comm, node: Node, places: list[torch.Tensor], mine: slice, *, everywhere: bool
) -> Phase:
    """Add, ring and copy in one phase: where the slice of a rank is its lane."""

    def here(place: slice) -> slice:
        return slice(mine.start + place.start, mine.start + place.stop)

    ring = RingSum(
        communicator,
        places[0][mine],
        BETWEEN_NODES,
        before=lambda place: add_slices(node, places, here(place)),
        after=lambda place: copy_slices(node, places, here(place)) if everywhere else [],
    )
    return [(ring.launch, ())]
