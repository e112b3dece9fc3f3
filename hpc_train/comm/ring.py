"""The sum by a ring: each rank talks to two neighbours only, and sends 2(N-1)/N of the buffer.

    N ranks cut the buffer into N chunks c0 .. c(N-1). In step s, rank r sends chunk r - s and gets
    chunk r - s - 1 (modulo N), which is what it sends in the next step. N = 3:

    rank   step 0       step 1       step 2       step 3          + added to what the receiver has
     0     c0 -> 1 +    c2 -> 1 +    c1 -> 1 =    c0 -> 1 =       = complete, takes its place
     1     c1 -> 2 +    c0 -> 2 +    c2 -> 2 =    c1 -> 2 =
     2     c2 -> 0 +    c1 -> 0 +    c0 -> 0 =    c2 -> 0 =
           |-- reduce-scatter --|    |---- allgather ----|

Chunks travel in segments: a segment goes on as soon as it has been added, while the next ones are
on their way into other buffers. What is to be done with a segment besides, before it is first
needed and once it is complete, is done while others are on their way. Each chunk is completed by
one rank and then copied, so results are the same to the bit. Method: P. Patarasuk and X. Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel Distrib.
Comput. 69 (2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hpc_train.comm.arithmetic import add_for, field, raw
from hpc_train.comm.cut import slices
from hpc_train.comm.phases import Phase, walk

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class Traffic:
    """How much travels at a time.

    Attributes:
        segment_bytes: most that a message holds, >= an element.
        window: receives that are open at a time, >= 1.
    """

    segment_bytes: int
    window: int


IN_NODE = Traffic(512 * 2**10, 2)
# Below 64 KiB, up to which MPI libraries send over TCP without asking first: the answer would wait
# behind all that its sender has queued on the same connection (measured over 1 Gbit/s: 0.99 of what
# the link carries; 0.73 with 512 KiB).
BETWEEN_NODES = Traffic(60 * 2**10, 4)


@dataclass(frozen=True)
class Hop:
    """What a rank gets in its turn, and passes on unless it is the last step.

    Attributes:
        place: which elements.
        adds: whether it is added to what is there, or takes its place.
        passes: whether it is sent on to the next rank.
        completes: whether the place then holds the sum over all ranks.
    """

    place: slice
    adds: bool
    passes: bool
    completes: bool


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
        Hop(place, step < num_ranks - 1, step < last, completes=step >= num_ranks - 2)
        for step in range(last + 1)
        for place in segments(rank - step - 1)
    ]
    return segments(rank), gets


@dataclass(frozen=True)
class _Get:
    """A hop with all that it takes, prepared: what comes, what is done before and after."""

    hop: Hop
    into: Any
    add: tuple[Any, Any, Any]
    passed: Any
    before: Phase
    after: Phase


def _nothing(_: slice) -> Phase:
    return []


class RingSum:
    """Sum a buffer over all ranks of a communicator.

    Args:
        communicator: the ranks; nothing else may travel on it during a launch.
        buffer: contiguous, shape (n,), on the CPU, of a type in `arithmetic.DTYPES`.
        traffic: how much travels at a time.
        before: the steps that make the values of a place, for places that make up the buffer.
        after: the steps that use the sum of a place, likewise; neither without other ranks.
    """

    def __init__(
        self,
        communicator: MPI.Comm,
        buffer: torch.Tensor,
        traffic: Traffic = IN_NODE,
        before: Callable[[slice], Phase] = _nothing,
        after: Callable[[slice], Phase] = _nothing,
    ) -> None:
        rank, size = communicator.Get_rank(), communicator.Get_size()
        self._next, self._before = (rank + 1) % size, (rank - 1) % size
        self._communicator = communicator
        self._add = add_for(buffer.dtype)
        item = buffer.element_size()
        segment = traffic.segment_bytes // item
        self._window = traffic.window
        first, gets = hops(rank, size, buffer.numel(), segment) if size > 1 else ([], [])
        values, octets = field(buffer), raw(buffer)

        def message(place: slice) -> Any:
            return octets[place.start * item : place.stop * item]

        length = max((hop.place.stop - hop.place.start for hop in gets), default=0)
        scratch = [torch.empty(length, dtype=buffer.dtype) for _ in range(traffic.window)]
        self._first = [(place.start, message(place), before(place)) for place in first]
        self._gets: list[_Get] = []
        for number, hop in enumerate(gets):
            place, own = hop.place, values[hop.place]
            spare = scratch[number % traffic.window][: place.stop - place.start]
            into = raw(spare) if hop.adds else message(place)
            first_use = before(place) if hop.adds else []
            last_use = after(place) if hop.completes else []
            add = (own, field(spare), own)
            self._gets.append(_Get(hop, into, add, message(place), first_use, last_use))

    def launch(self) -> None:
        """Send, add and pass on, until every rank has all."""
        isend, following = self._communicator.Isend, self._next
        sent: dict[int, MPI.Request] = {}
        coming: list[MPI.Request] = []
        self._open(coming, self._window, sent)
        for start, message, before in self._first:
            walk(before)
            sent[start] = isend(message, following)
        for number, get in enumerate(self._gets):
            self._open(coming, number + self._window, sent)
            walk(get.before)
            coming[number].Wait()
            if get.hop.adds:
                self._add(*get.add)
            if get.hop.passes:
                sent[get.hop.place.start] = isend(get.passed, following)
            walk(get.after)
        for request in sent.values():
            request.Wait()

    def _open(self, coming: list[MPI.Request], until: int, sent: dict[int, MPI.Request]) -> None:
        """Open receives up to number `until`; into the buffer only when what was there has left."""
        for get in self._gets[len(coming) : until]:
            if not get.hop.adds:
                if get.hop.place.start not in sent:
                    return
                sent.pop(get.hop.place.start).Wait()
            coming.append(self._communicator.Irecv(get.into, self._before))

    def finish(self) -> None:
        """Nothing is left to do."""
