"""Who and where each rank is, and how ranks agree on an error.

`World` is pure, computed from what the ranks gathered about themselves; the functions below need
no more of communication than the protocol `Group`.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import EXIT_FAILED, HpcTrainError

T = TypeVar("T")
Json = Any  # None, bool, int, float, str, list or dict of the same


@dataclass(frozen=True)
class World:
    """The ranks of a job and the nodes that they run on.

    `nodes[r]` is the node of rank r; nodes are numbered by their lowest rank. The mesh
    (replica, stage, part) is how many model replicas there are, and into how many pipeline stages
    and tensor parts each is cut: order and plan speak of replicas, not of ranks.
    """

    rank: int
    nodes: tuple[int, ...]
    mesh: tuple[int, int, int]

    @classmethod
    def from_hosts(cls, keys: Sequence[str], rank: int) -> World:
        """The world in which rank r told the key `keys[r]` (host name + boot id) of its node."""
        if not 0 <= rank < len(keys):
            raise ValueError(f"rank must lie in [0, {len(keys)}) (rank: {rank})")
        number: dict[str, int] = {}
        nodes = tuple(number.setdefault(key, len(number)) for key in keys)
        return cls(rank=rank, nodes=nodes, mesh=(len(keys), 1, 1))

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.nodes)

    @property
    def node(self) -> int:
        """The node of this rank, in [0, num_nodes)."""
        return self.nodes[self.rank]

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return max(self.nodes) + 1

    @property
    def local_ranks(self) -> tuple[int, ...]:
        """The ranks of this node, ascending."""
        return tuple(r for r, node in enumerate(self.nodes) if node == self.node)

    @property
    def local_rank(self) -> int:
        """The position of this rank among the ranks of its node."""
        return self.local_ranks.index(self.rank)

    @property
    def local_size(self) -> int:
        """Number of ranks on this node."""
        return len(self.local_ranks)

    @property
    def is_coordinator(self) -> bool:
        """Whether this rank decides, prints and writes for all."""
        return self.rank == 0


class Group(Protocol):
    """Ranks that can agree: what crafts need of communication, injected by `train.build`."""

    @property
    def world(self) -> World:
        """Who and where this rank is."""

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The element-wise sum over all ranks, on every rank; `values` is left alone."""

    def gather(self, value: Json) -> list[Json]:
        """Every rank's value, in the order of ranks, on every rank."""

    def broadcast(self, value: Json, root: int = 0) -> Json:
        """The root's value, on every rank."""

    def barrier(self, seconds: float | None = None) -> None:
        """Return once all ranks have called; raise TimeoutError after `seconds`."""


class RankError(HpcTrainError):
    """What went wrong on one rank, raised on all of them at the same point of the program.

    Attributes:
        agreed: always true: every rank raises it, so all can leave together and one can print.
        trace: the traceback on the rank where it began, if it is a bug there.
    """

    agreed = True

    def __init__(self, report: dict[str, Json]) -> None:
        super().__init__(report["message"], hint=report["hint"], where=report["where"])
        self.exit_code = report["exit_code"]
        self.trace = str(report["trace"])
        self.is_bug = bool(report["is_bug"])
        self._lines = [str(line) for line in report["lines"]]

    def lines(self) -> list[str]:
        return self._lines


def agree(group: Group, error: Exception | None) -> None:
    """Return if no rank has an error; else raise the lowest such rank's on every rank.

    Raises:
        RankError: on every rank, naming rank and host when there are several ranks.
    """
    for report in group.gather(None if error is None else _report(group.world, error)):
        if report is not None:
            raise RankError(report) from error


def together(group: Group, function: Callable[[], T]) -> T:
    """Call `function` on every rank; if it raises on any of them, raise `RankError` on all."""
    try:
        result = function()
    except Exception as error:
        agree(group, error)
        raise
    agree(group, None)
    return result


def on_coordinator(group: Group, function: Callable[[], Json]) -> Json:
    """Call `function` on rank 0 and return its JSON result, or raise its error, on every rank."""
    result: Json = None
    error: Exception | None = None
    if group.world.is_coordinator:
        try:
            result = function()
        except Exception as raised:
            error = raised
    report = _report(group.world, error, place=False) if error is not None else None
    result, report = group.broadcast([result, report])
    if report is not None:
        raise RankError(report) from error
    return result


def _report(world: World, error: Exception, *, place: bool = True) -> dict[str, Json]:
    """An error as JSON; with its rank and host if `place` and there are several ranks."""
    if isinstance(error, RankError):
        return {**vars(error), "lines": error.lines()}
    known = isinstance(error, HpcTrainError)
    message = error.message if isinstance(error, HpcTrainError) else f"{error!r}"
    lines = error.lines() if isinstance(error, HpcTrainError) else [message]
    if place and world.size > 1:
        lines = [f"rank {world.rank} on {socket.gethostname()}: {lines[0]}", *lines[1:]]
    return {
        "message": message,
        "hint": getattr(error, "hint", None),
        "where": getattr(error, "where", None),
        "exit_code": error.exit_code if isinstance(error, HpcTrainError) else EXIT_FAILED,
        "lines": lines,
        "is_bug": not known,
        "trace": "".join(traceback.format_exception(error)),
    }
