"""A compressed sum over all ranks: between nodes, or between ranks where there is one node.

              node 0              node 1
    rank      0     1     2       3     4
    slice     s0    s1    s2      s0    s1       1 add       its slice of all ranks of the node
    lane      l0    l1    -       l0    l1       2 compress  0 with 3 on lane 0, 1 with 4 on lane 1
    slice     s0    s1    s2      s0    s1       3 copy      the sum, to all ranks of the node

Lanes begin and end where parameters do. Where the ranks of a node do not share the buffer's memory,
or all ranks are on one node, every rank is a party of its own, and sums the whole buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from hpc_train.comm.compression import find_compressor
from hpc_train.comm.compression.feedback import Feedback
from hpc_train.comm.compression.terms import Matrix, Terms
from hpc_train.comm.cut import per_cache_line, slices
from hpc_train.comm.operation import Marked, OnDevice, Operation
from hpc_train.comm.phases import Phase, PhasedSum
from hpc_train.comm.shared import add_slices, copy_slices
from hpc_train.errors import UsageError

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpc_train.comm.communicator import Comm

DTYPES = (torch.float32, torch.float64)


class CompressedSum:
    """The sum of a buffer, of which only a part travels, with error feedback; an `Operation`.

    Args:
        operation: all of it.
        feedback: this rank's part of it; None if it has none.
        place: what of the buffer that part is about.
        is_first: whether this rank's party is the first one, which takes up what was left.
    """

    def __init__(
        self, operation: Operation, feedback: Feedback | None, place: slice, *, is_first: bool
    ) -> None:
        self._operation = operation
        self._feedback = feedback
        self._place = place
        self._is_first = is_first

    def mark(self) -> None:
        """What computes the buffer has been asked for by this thread."""
        if isinstance(self._operation, Marked):
            self._operation.mark()

    def launch(self) -> None:
        """Begin; the buffer may not be touched until `finish` has returned."""
        self._operation.launch()

    def finish(self) -> None:
        """Return once the buffer holds the sum over all ranks."""
        self._operation.finish()

    def set_batch_size(self, samples: int) -> None:
        """The next sum is over so many samples, >= 1."""
        if self._feedback is not None:
            self._feedback.batch_size = samples

    def commit(self) -> None:
        """The last sum counts; without this it never was."""
        if self._feedback is not None:
            self._feedback.commit()

    def owed(self, out: torch.Tensor) -> None:
        """Write what this rank owes to the sum, for a batch of one sample, to `out`, shape (n,)."""
        if self._feedback is not None:
            out[self._place].copy_(self._feedback.residual).mul_(1 / self._feedback.size)

    def take(self, residual: torch.Tensor | None) -> None:
        """What all ranks owe together, for a batch of one sample, shape (n,): one takes it up."""
        if self._feedback is not None:
            mine = residual is not None and self._is_first
            self._feedback.take(residual[self._place] if mine and residual is not None else None)

    def tensors(self) -> dict[int, torch.Tensor]:
        """What the compressor learned, by where in the buffer it belongs; of this rank's part."""
        if self._feedback is None:
            return {}
        found = self._feedback.compressor.tensors()
        return {self._place.start + start: tensor for start, tensor in found.items()}

    def restore(self, tensors: dict[int, torch.Tensor]) -> None:
        """Take up what `tensors` told, on any rank."""
        if self._feedback is not None:
            begin = self._place.start
            self._feedback.compressor.restore({s - begin: t for s, t in tensors.items()})


def compressed(
    comm: Comm, buffer: torch.Tensor, matrices: Sequence[Matrix], terms: Terms
) -> CompressedSum:
    """The compressed sum of `buffer` over all ranks; collective.

    Args:
        comm: the ranks.
        buffer: contiguous, shape (n,), float32 or float64.
        matrices: the parameters in it, in order.
        terms: how to compress.

    Raises:
        UsageError: on every rank, if there is no such compressor, or none for that type.
    """
    if buffer.dtype not in DTYPES:
        raise UsageError(
            f"gradients are compressed from {', '.join(map(str, DTYPES))} "
            f"(gradients: {buffer.dtype})",
            where="comm.gradient_compression",
        )
    if buffer.device.type != "cpu":
        host = torch.empty_like(buffer, device="cpu", pin_memory=True)
        inner = compressed(comm, host, matrices, terms)
        inner._operation = OnDevice(inner._operation, buffer, host)
        return inner
    node, num_nodes = comm.node, comm.world.num_nodes
    whole = slice(0, buffer.numel())
    peers = node.peers(buffer) if 1 < num_nodes < comm.world.size else None
    inside = num_nodes > 1 and all(comm.gather(peers is not None or node.size == 1))
    if not inside or node.size == comm.world.size or num_nodes == comm.world.size:
        feedback = _feedback(comm, comm.data, buffer, matrices, terms)
        return CompressedSum(_Straight(feedback), feedback, whole, is_first=comm.world.rank == 0)
    lanes = cut_between(matrices, buffer.numel(), min(Counter(comm.world.nodes).values()))
    return _by_lanes(comm, peers or [buffer], lanes, matrices, terms)


class _Straight:
    """An operation that is one exchange."""

    def __init__(self, feedback: Feedback) -> None:
        self.launch = feedback.launch

    def finish(self) -> None:
        """Nothing is left to do."""


def _by_lanes(
    comm: Comm,
    places: list[torch.Tensor],
    lanes: Sequence[slice],
    matrices: Sequence[Matrix],
    terms: Terms,
) -> CompressedSum:
    """In each node by shared memory, between nodes compressed."""
    node, first = comm.node, places[0]
    mine = slices(first.numel(), node.size, per_cache_line(first.element_size()))[node.rank]
    communicator = comm.lanes()
    feedback, lane = None, slice(0, 0)
    between: Phase = []
    if node.rank < len(lanes):
        lane = lanes[node.rank]
        inside = [
            Matrix(m.start - lane.start, m.shape)
            for m in matrices
            if lane.start <= m.start and m.stop <= lane.stop
        ]
        feedback = _feedback(comm, communicator, first[lane], inside, terms)
        between = [(feedback.launch, ())]
    phases = [add_slices(node, places, mine), between, copy_slices(node, places, mine)]
    operation = PhasedSum(node.barrier, [[], *phases, []])
    return CompressedSum(operation, feedback, lane, is_first=communicator.Get_rank() == 0)


def _feedback(
    comm: Comm,
    communicator: MPI.Comm,
    values: torch.Tensor,
    matrices: Sequence[Matrix],
    terms: Terms,
) -> Feedback:
    wire = comm.wire(communicator)
    name = terms.name if wire.size > 1 else "none"
    return Feedback(find_compressor(name)(wire, values, matrices, terms), values)


def cut_between(matrices: Sequence[Matrix], size: int, parts: int) -> list[slice]:
    """[0, size) in `parts` neighbouring slices, about equal, that cut no parameter: pure.

    Args:
        matrices: the parameters, in order; none overlaps another.
        size: elements of the buffer.
        parts: >= 1; some may be empty.
    """
    borders = [0]
    free = [0, *(m.start for m in matrices), size]
    for part in range(1, parts):
        nearest = min(free, key=lambda border: abs(border - size * part / parts))
        borders.append(max(borders[-1], nearest))
    return [slice(start, stop) for start, stop in pairwise([*borders, size])]
