"""Who and where each rank is: pure, computed from what the ranks gathered about themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
