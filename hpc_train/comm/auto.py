"""The choice between collectives: a short measurement, in turns, agreed by all ranks.

What was found holds for all buffers of one size class (a power of two of bytes), type and place;
it is remembered for the life of the ranks, and for the next job on the same hosts (`remembered`);
`explain` tells it to people.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from hpc_train.comm.choice import Choice
from hpc_train.comm.operation import Operation
from hpc_train.comm.remembered import recall, remember

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

Builder = Callable[["Comm", torch.Tensor], Operation | None]

_SECONDS = 0.2  # what a measurement may take
_MAX_ROUNDS = 15
_MIN_ROUNDS = 3
_SAMPLE_BYTES = 64 * 2**20  # larger buffers behave like this much of them
_TICK_SECONDS = 2e-4  # shorter operations are repeated, up to so many times
_MAX_REPEATS = 20
_ENOUGH = 1.05  # a collective must be this much faster than the first one to take its place


def choose(seconds: Mapping[str, Sequence[float]]) -> Choice:
    """The collective whose median paired ratio to the first one is best: pure.

    Args:
        seconds: name -> seconds in each round, the same number for all, >= 1; the first one is
            kept unless another is at least 5 % faster.
    """
    first, *others = seconds
    ratios = {
        name: statistics.median(
            base / mine for base, mine in zip(seconds[first], seconds[name], strict=True)
        )
        for name in others
    }
    median = statistics.median(seconds[first])
    best = max(ratios, key=lambda name: ratios[name], default=None)
    if best is None:
        return Choice(first, "nothing else can be used here")
    if ratios[best] < _ENOUGH:
        reason = f"{_time(median)}; {best} is {ratios[best]:.2f} times as fast"
        return Choice(first, reason)
    fast = statistics.median(seconds[best])
    return Choice(best, f"{_time(fast)}, {ratios[best]:.2f} times as fast as {first}")


def size_class(size: int) -> int:
    """The least power of two that is not below `size`, >= 1 bytes."""
    return 1 << max(0, size - 1).bit_length()


def key_of(buffer: torch.Tensor, *, lent: bool) -> tuple[int, str, bool]:
    """What a choice holds for: size class, type, and whether all ranks lent the memory."""
    size = buffer.numel() * buffer.element_size()
    return size_class(size), str(buffer.dtype).removeprefix("torch."), lent


def explain(comm: Comm) -> list[str]:
    """What has been chosen on these ranks, and why: a line for each kind of buffer."""
    return [
        f"comm.collective auto: {choice.name} for {dtype} of up to {size:,} bytes"
        f"{' in shared memory' if lent else ''} ({choice.reason}"
        f"{f'; measured on {choice.day}' if choice.day else ''})"
        for (size, dtype, lent), choice in comm.choices.items()
    ]


def auto(comm: Comm, buffer: torch.Tensor, builders: Mapping[str, Builder]) -> Operation:
    """The operation on `buffer` of the fastest of `builders`, the first of which always works.

    Collective. The buffer keeps its values.

    Args:
        comm: the ranks, >= 2.
        buffer: contiguous, shape (n,), n >= 1, on the CPU.
        builders: name -> what makes an operation on a buffer, or None where it cannot.
    """
    lent = comm.node.peers(buffer) is not None
    key = key_of(buffer, lent=all(comm.gather(lent)))
    is_job = comm.is_whole and not comm.lost
    if is_job and not comm.choices:
        recall(comm)
    if key not in comm.choices or comm.choices[key].name not in builders:
        comm.choices[key], among_all = _measure(comm, buffer, builders)
        if is_job and among_all:
            remember(comm)
    name = comm.choices[key].name
    made = builders[name](comm, buffer) or next(iter(builders.values()))(comm, buffer)
    assert made is not None, "the first collective works everywhere"
    return made


def _measure(
    comm: Comm, buffer: torch.Tensor, builders: Mapping[str, Builder]
) -> tuple[Choice, bool]:
    """What is chosen for a buffer, and whether everything could be tried."""
    sample = buffer.detach()[: _SAMPLE_BYTES // buffer.element_size()]
    kept = sample.clone()
    operations = {name: build(comm, sample) for name, build in builders.items()}
    usable = {name: made for name, made in operations.items() if made is not None}
    among_all = len(usable) == len(builders)
    if len(usable) < 2:
        return choose({name: [1.0] for name in usable}), among_all
    sample.zero_()  # sums of sums would grow without bounds
    try:
        seconds = _rounds(comm, usable)
    finally:
        sample.copy_(kept)
    choice = choose(seconds) if comm.world.is_coordinator else Choice("", "")
    name, reason = comm.broadcast([choice.name, choice.reason])
    return Choice(name, reason), among_all


def _rounds(comm: Comm, operations: Mapping[str, Operation]) -> dict[str, list[float]]:
    """Seconds that the slowest rank needs, in turns; as many rounds as the time allows."""
    _turns(comm, operations, 1)
    once = sum(_turns(comm, operations, 1))
    repeats = int(comm.broadcast(max(1, min(_MAX_REPEATS, int(_TICK_SECONDS / once)))))
    planned = int(_SECONDS / (once * repeats))
    rounds = int(comm.broadcast(max(_MIN_ROUNDS, min(_MAX_ROUNDS, planned))))
    mine = [_turns(comm, operations, repeats) for _ in range(rounds)]
    slowest = np.array(comm.gather(mine)).max(axis=0) / repeats  # (rounds, operations)
    return {name: slowest[:, place].tolist() for place, name in enumerate(operations)}


def _turns(comm: Comm, operations: Mapping[str, Operation], repeats: int) -> list[float]:
    """Seconds of `repeats` launches of each operation, begun by all ranks together."""
    found = []
    for operation in operations.values():
        comm.meet()
        started = time.perf_counter()
        for _ in range(repeats):
            operation.launch()
            operation.finish()
        found.append(time.perf_counter() - started)
    return found


def _time(seconds: float) -> str:
    """For people: "1.2 ms"."""
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"
