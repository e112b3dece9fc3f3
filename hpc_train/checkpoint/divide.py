"""Who writes what: the tensors of a set, divided among ranks by their size; pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

PART_BYTES = 64 * 2**20  # a part is worth another writer from about this size on


def num_parts(total_bytes: int, num_ranks: int, part_bytes: int = PART_BYTES) -> int:
    """How many parts a set of `total_bytes` has: one for each `part_bytes`, at most one a rank."""
    return max(1, min(num_ranks, total_bytes // part_bytes))


def writer(part: int, parts: int, num_ranks: int) -> int:
    """The rank that writes `part`: they are spread, since neighbours share a node's disk."""
    return part * num_ranks // parts


def divide(sizes: Mapping[str, int], parts: int) -> list[list[str]]:
    """The names in each part: the largest first, each to the part that has least so far.

    The largest part is at most 4/3 - 1/(3 parts) of the best possible (Graham, Bounds on
    multiprocessing timing anomalies, 1969). Equal on every rank, as ties go by name and number.

    Args:
        sizes: bytes of each tensor, by name.
        parts: how many, >= 1; those beyond the number of tensors are empty.
    """
    found: list[list[str]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        load, part = heapq.heappop(loads)
        found[part].append(name)
        heapq.heappush(loads, (load + sizes[name], part))
    return found
