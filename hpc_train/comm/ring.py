"""The sum by a ring: each rank talks to two neighbours only, and sends 2(N-1)/N of the buffer.

    N ranks cut the buffer into N chunks c0 .. c(N-1). In step s, rank r sends chunk r - s and gets
    chunk r - s - 1 (modulo N), which is what it sends in the next step. N = 3:

    rank   step 0       step 1       step 2       step 3          + added to what the receiver has
     0     c0 -> 1 +    c2 -> 1 +    c1 -> 1 =    c0 -> 1 =       = complete, takes its place
     1     c1 -> 2 +    c0 -> 2 +    c2 -> 2 =    c1 -> 2 =
     2     c2 -> 0 +    c1 -> 0 +    c0 -> 0 =    c2 -> 0 =
           |-- reduce-scatter --|    |---- allgather ----|

Chunks travel in segments: a segment goes on as soon as it has been added, while the next ones are
on their way into a second buffer. Each chunk is completed by one rank and then copied, so results
are the same to the bit. Method: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms
for clusters of workstations", J. Parallel Distrib. Comput. 69 (2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hpc_train.comm.arithmetic import add_for, field, raw
from hpc_train.comm.cut import slices

if TYPE_CHECKING:
    from mpi4py import MPI

_SEGMENT_BYTES = 512 * 2**10
_WINDOW = 2  # receives that are open at a time


@dataclass(frozen=True)
class Hop:
    """What a rank gets in its turn, and passes on unless it is the last step.

    Attributes:
        place: which elements.
        adds: whether it is added to what is there, or takes its place.
        passes: whether it is sent on to the next rank.
    """

    place: slice
    adds: bool
    passes: bool


def hops(rank: int, num_ranks: int, size: int, segment: int) -> tuple[list[slice], list[Hop]]:
    """What a rank sends first, and then what it gets, in order: pure.

    Args:
        rank: in [0, num_ranks).
        num_ranks: >= 2.
        size: elements of the buffer.
        segment: most elements of a message, >= 1.
    """
    chunks = slices(size, num_ranks)
    count = max(1, -(-(chunks[0].stop - chunks[0].start) // segment))

    def segments(chunk: int) -> list[slice]:
        whole = chunks[chunk % num_ranks]
        cuts = slices(whole.stop - whole.start, count)
        return [
            slice(whole.start + c.start, whole.start + c.stop) for c in cuts if c.stop > c.start
        ]

    last = 2 * num_ranks - 3
    gets = [
        Hop(place, adds=step < num_ranks - 1, passes=step < last)
        for step in range(last + 1)
        for place in segments(rank - step - 1)
    ]
    return segments(rank), gets


class RingSum:
    """Sum a buffer over all ranks of a communicator.

    Args:
        communicator: the ranks; nothing else may travel on it during a launch.
        buffer: contiguous, shape (n,), on the CPU, of a type in `arithmetic.DTYPES`.
    """

    def __init__(self, communicator: MPI.Comm, buffer: torch.Tensor) -> None:
        rank, size = communicator.Get_rank(), communicator.Get_size()
        self._next, self._before = (rank + 1) % size, (rank - 1) % size
        self._communicator = communicator
        self._add = add_for(buffer.dtype)
        item = buffer.element_size()
        segment = _SEGMENT_BYTES // item
        first, gets = hops(rank, size, buffer.numel(), segment) if size > 1 else ([], [])
        values, octets = field(buffer), raw(buffer)

        def message(place: slice) -> Any:
            return octets[place.start * item : place.stop * item]

        length = max((hop.place.stop - hop.place.start for hop in gets), default=0)
        scratch = [torch.empty(length, dtype=buffer.dtype) for _ in range(_WINDOW)]
        self._first = [(place.start, message(place)) for place in first]
        self._gets: list[tuple[Hop, Any, Any, Any]] = []
        for number, hop in enumerate(gets):
            spare = scratch[number % _WINDOW][: hop.place.stop - hop.place.start]
            into = raw(spare) if hop.adds else message(hop.place)
            self._gets.append((hop, into, field(spare), values[hop.place]))
        self._messages = [message(hop.place) for hop in gets]

    def launch(self) -> None:
        """Send, add and pass on, until every rank has all."""
        isend, following = self._communicator.Isend, self._next
        sent = {start: isend(message, following) for start, message in self._first}
        coming = [self._receive(number, sent) for number in range(min(_WINDOW, len(self._gets)))]
        for number, (hop, _, summand, values) in enumerate(self._gets):
            coming[number].Wait()
            if hop.adds:
                self._add(values, summand, values)
            if hop.passes:
                sent[hop.place.start] = isend(self._messages[number], following)
            if number + _WINDOW < len(self._gets):
                coming.append(self._receive(number + _WINDOW, sent))
        for request in sent.values():
            request.Wait()

    def _receive(self, number: int, sent: dict[int, MPI.Request]) -> MPI.Request:
        """Open a receive; into the buffer only when what was there has left."""
        hop, into, _, _ = self._gets[number]
        if not hop.adds and hop.place.start in sent:
            sent.pop(hop.place.start).Wait()
        return self._communicator.Irecv(into, self._before)

    def finish(self) -> None:
        """Nothing is left to do."""
