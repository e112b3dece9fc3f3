"""The competitors: each sums one buffer over all ranks, in place, when it is called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from hpc_train.comm import Comm, SumOnce, prepare, sum_once
from hpc_train.comm.native import DTYPES as MPI_DTYPES
from hpc_train.comm.native import NativeSum

# parameters of mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_GENEROUS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
# what a process of the usual settings arrives at after it has freed large buffers
_USUAL = {_TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17, _MMAP_MAX: 2**16}


@dataclass(frozen=True)
class Side:
    """One competitor.

    Attributes:
        buffer: what it sums; None for the limit, which sums nothing over ranks.
        run: sums once.
        before, after: called around its turns, not timed.
        total: where the sum lies afterwards; None for `buffer`.
    """

    buffer: torch.Tensor | None
    run: Callable[[], object]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    total: torch.Tensor | None = None


def make_sides(comm: Comm, size: int, dtype: torch.dtype) -> dict[str, Side]:
    """Every side that can sum `size` elements of `dtype` on these ranks, by name; collective."""
    private, lent = torch.zeros(size, dtype=dtype), comm.allocate(size, dtype)
    sides: dict[str, Side] = {}
    if dtype in MPI_DTYPES:
        whole = NativeSum(comm, private, max(1, size) * private.element_size())
        sides["mpi"] = Side(private, whole.launch)
        sides["mpi_malloc"] = Side(
            private, whole.launch, lambda: _malloc(_GENEROUS), lambda: _malloc(_USUAL)
        )
        sides["native"] = _collective("native", comm, private)
    one_node = comm.world.num_nodes == 1
    for name in ("ring", "shared", "hierarchical", "auto"):
        if name != "shared" or one_node:
            sides[name] = _collective(name, comm, private)
    sides["arena"] = _collective("shared" if one_node else "hierarchical", comm, lent)
    once = sum_once(comm, [lent])
    if once is not None:
        sides["once"] = _once(lent, once)
    sides["auto_arena"] = _collective("auto", comm, lent)
    sides["gloo"] = Side(private, lambda: dist.all_reduce(private))
    part = -(-size // comm.world.size)
    own = torch.zeros(part, dtype=dtype), torch.ones(part, dtype=dtype)
    sides["limit"] = _limit(comm.world.size, *own)
    if once is not None:  # the pages of shared memory may be larger
        shared = comm.allocate(part, dtype), comm.allocate(part, dtype)
        sides["limit_arena"] = _limit(comm.world.size, *shared)
    return sides


def _collective(name: str, comm: Comm, buffer: torch.Tensor) -> Side:
    operation = prepare(name, comm, buffer)

    def run() -> None:
        operation.launch()
        operation.finish()

    return Side(buffer, run)


def _once(buffer: torch.Tensor, operation: SumOnce) -> Side:
    def run() -> None:
        operation.launch()
        operation.finish()
        operation.release()  # a part of what it costs, wherever it is waited for

    return Side(buffer, run, total=operation.totals[0])


def _limit(num_ranks: int, one: torch.Tensor, other: torch.Tensor) -> Side:
    """All ranks add at once, from memory of their own, as much as the sum needs of each."""
    if one.dtype not in MPI_DTYPES:
        return Side(None, lambda: [torch.add(one, other, out=one) for _ in range(num_ranks - 1)])
    a, b = one.numpy(), other.numpy()
    return Side(None, lambda: [np.add(a, b, a) for _ in range(num_ranks - 1)])


def _malloc(values: dict[int, int]) -> None:
    """Set how the C library keeps freed memory; where there is no mallopt, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in values.items():
            mallopt(name, value)
