"""The sides of a study of loading: each a generator of numbers of samples.

next(turn)        sets everything up and yields 0; the clock starts afterwards
next(turn) ...    reads a batch and yields how many samples it has, until the epoch ends
turn.close()      leaves nothing open
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from hpc_train.bench.loader.settings import Workload
from hpc_train.bench.loader.sides import array, inflate, machine, ours, plain, pytorch

Turn = Callable[[Workload], Generator[int, None, None]]


class Side(NamedTuple):
    """What it is called, how it reads, and whether it can read a certain workload."""

    title: str
    turn: Turn
    can: Callable[[Workload], bool]


def _always(workload: Workload) -> bool:
    return True


OURS = "ours"
# name -> side; the first is compared with each of the others
SIDES = {
    OURS: Side("hpc_train", ours.turn, _always),
    "one_by_one": Side("h5py, one by one", plain.one_by_one, _always),
    "fancy": Side("h5py, fancy index", plain.fancy, _always),
    "pytorch_0": Side("DataLoader over h5py", pytorch.without_workers, _always),
    "pytorch_2": Side("DataLoader, 2 workers", pytorch.with_workers, _always),
    "array": Side("array in memory", array.turn, array.can),
    "inflate": Side("limit: zlib, 2 threads", inflate.turn, inflate.can),
    "machine": Side("limit: pread", machine.turn, _always),
}


def sides_of(workload: Workload) -> dict[str, Side]:
    """The sides that can read a workload."""
    return {name: side for name, side in SIDES.items() if side.can(workload)}
