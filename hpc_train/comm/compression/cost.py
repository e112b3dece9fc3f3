"""Whether compression pays: what the link needs for fewer bytes, and what compressing costs.

    seconds = seconds of compressing + rounds x latency + bytes / bandwidth

against the seconds of the plain sum. Latency and bandwidth are those between the parties, measured
by sums of a small and a larger array; seconds of compressing by one party alone, on random values.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from hpc_train.comm.compression import COMPRESSORS, Matrix, Terms
from hpc_train.comm.compression.terms import Build
from hpc_train.comm.compression.wire import Alone, Wire
from hpc_train.errors import UsageError

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

_SMALL_BYTES = 8
_LARGER_BYTES = 2**20
_TURNS = 5
_SAMPLE_ELEMENTS = 2**20  # larger buffers cost in proportion
_ENOUGH = 1.2  # compression must be so much faster, since it is not exact


@dataclass(frozen=True)
class Link:
    """What lies between two parties, as a sum over all of them sees it.

    Attributes:
        latency_seconds: of one exchange of next to nothing.
        bytes_per_second: sent by a party.
    """

    latency_seconds: float
    bytes_per_second: float

    def seconds(self, rounds: int, sent_bytes: float) -> float:
        """Of so many exchanges with so many bytes from each party in all."""
        return rounds * self.latency_seconds + sent_bytes / self.bytes_per_second


@dataclass(frozen=True)
class Offer:
    """What one way to compress a buffer needs: exchanges, bytes, and seconds of computing."""

    rounds: int
    sent_bytes: int
    computing_seconds: float


@dataclass(frozen=True)
class Verdict:
    """Which compression is used, and why."""

    name: str
    reason: str


def judge(link: Link, offers: Mapping[str, Offer]) -> Verdict:
    """The offer that ends first, if it is well ahead of "none", which is one of them: pure."""
    seconds = {
        name: offer.computing_seconds + link.seconds(offer.rounds, offer.sent_bytes)
        for name, offer in offers.items()
    }
    best = min(seconds, key=lambda name: seconds[name])
    plain, fast = seconds["none"], seconds[best]
    line = f"{8e-9 * link.bytes_per_second:.2g} Gbit/s, {1e6 * link.latency_seconds:.0f} us"
    if plain < _ENOUGH * fast:
        return Verdict("none", f"over {line} it saves too little: {_gain(plain, fast)} with {best}")
    return Verdict(best, f"over {line} it should save time: {_gain(plain, fast)}")


def _gain(plain: float, fast: float) -> str:
    return f"{1e3 * plain:.2f} ms plain, {1e3 * fast:.2f} ms"


def decide(
    comm: Comm, sizes: Sequence[int], layouts: Sequence[Sequence[Matrix]], terms: Terms
) -> Verdict:
    """Which compression pays for gradients of this layout, in float32; collective.

    Args:
        comm: the ranks.
        sizes: elements of each buffer.
        layouts: the parameters in each.
        terms: how to compress; the name is of no matter.
    """
    if comm.world.num_nodes == 1:
        return Verdict("none", "all ranks are on one node")
    communicator = comm.lanes()
    reach = min(comm.world.local_size, int(min(comm.gather(comm.world.local_size))))
    wire: Wire = comm.wire(communicator) if comm.world.local_rank < reach else Alone()
    told = comm.gather([_time(wire, _SMALL_BYTES), _time(wire, _LARGER_BYTES), wire.size])
    small, larger, parties = (max(column) for column in np.array(told, float).T)
    sent = 2 * (parties - 1) / parties * _LARGER_BYTES
    link = Link(small, sent / max(larger - small, 1e-9))
    offers = _offers(int(parties), reach, sizes, layouts, terms)
    costs = comm.gather([offer.computing_seconds for offer in offers.values()])
    slowest = np.array(costs, float).max(axis=0)
    agreed = {
        name: replace(offer, computing_seconds=float(seconds))
        for (name, offer), seconds in zip(offers.items(), slowest, strict=True)
    }
    return judge(link, agreed)


def _offers(
    parties: int,
    lanes: int,
    sizes: Sequence[int],
    layouts: Sequence[Sequence[Matrix]],
    terms: Terms,
) -> dict[str, Offer]:
    """What each compressor needs for all buffers, each cut among `lanes` ranks of a node."""
    offers = {}
    for name, build in COMPRESSORS.items():
        with contextlib.suppress(UsageError):  # of one that cannot have buffers as large as these
            offers[name] = _offer(name, build, parties, lanes, sizes, layouts, terms)
    return offers


def _offer(
    name: str,
    build: Build,
    parties: int,
    lanes: int,
    sizes: Sequence[int],
    layouts: Sequence[Sequence[Matrix]],
    terms: Terms,
) -> Offer:
    """What one compressor needs."""
    rounds, sent_bytes, seconds = 0, 0, 0.0
    for size, layout in zip(sizes, layouts, strict=True):
        like = torch.empty(size)
        many = build(_Crowd(parties), like, layout, terms)
        rounds += many.rounds
        sent_bytes += many.sent_bytes
        part = min(size, _SAMPLE_ELEMENTS)
        inside = [m for m in layout if m.stop <= part]
        alone = build(Alone(), like[:part], inside, terms)
        values, left = torch.randn(part), torch.empty(part)
        if name != "none":
            seconds += _fastest(lambda c=alone, v=values, r=left: c.sum(v, r)) * size / part  # type: ignore[misc]
    return Offer(rounds, sent_bytes // lanes, seconds / lanes)


class _Crowd(Alone):
    """So many parties, of which none is there: to ask what would be sent."""

    def __init__(self, size: int) -> None:
        self.size = size


def _fastest(function: Callable[[], None], turns: int = 3) -> float:
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(turns):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


def _time(wire: Wire, size: int) -> float:
    """Median seconds of a sum of `size` bytes."""
    values = np.zeros(size // 4, np.float32)
    found = []
    for _ in range(_TURNS + 1):
        started = time.perf_counter()
        wire.sum(values)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])
