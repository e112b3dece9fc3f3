"""Blocks: the rows that are read together, numbered without ever being listed.

    extent      rows [first, stop) of one shard          chunk grid    |----|----|----|--
    blocks      the parts that the chunk grid cuts it to     extent      [-|----|----|-]
                                                             blocks       o   f    f   o

Most blocks have the same, full number of rows (f): those are numbered 0 .. num_full-1 in the order
of samples, and found by arithmetic. The few others (o: at the ends of an extent, or in shards with
another chunk length) follow, and stand in a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Extent:
    """Rows [first, stop) of shard `shard`, whose blocks begin at multiples of `block_rows`."""

    shard: int
    first: int
    stop: int
    block_rows: int

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.first

    @property
    def full(self) -> tuple[int, int]:
        """The first whole block of the chunk grid inside the extent, and how many there are."""
        begin = -(-self.first // self.block_rows)
        return begin, max(0, self.stop // self.block_rows - begin)


class Blocks:
    """The blocks of a data set.

    Attributes:
        rows: rows of a full block.
        num_full: number of full blocks.
        odd_rows: rows of each other block, shape (num_odd,).
        num_samples: rows of all blocks.
    """

    def __init__(self, extents: Sequence[Extent]) -> None:
        sizes = np.array([extent.size for extent in extents], np.int64)
        bases = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.num_samples = int(bases[-1])
        self.rows = _most_common_rows(extents)
        starts: list[int] = []  # of the first full block of each extent that has some
        counts: list[int] = []
        odd: list[tuple[int, int]] = []
        for base, extent in zip(bases.tolist(), extents, strict=False):
            offset = base - extent.first
            begin, count = extent.full if extent.block_rows == self.rows else (0, 0)
            if count == 0:
                odd += _cut(extent, extent.first, extent.stop, offset)
                continue
            inner, outer = begin * self.rows, (begin + count) * self.rows
            odd += _cut(extent, extent.first, inner, offset)
            odd += _cut(extent, outer, extent.stop, offset)
            starts.append(inner + offset)
            counts.append(count)
        self._full_starts = np.array(starts, np.int64)
        self._full_ends = np.cumsum(np.array(counts, np.int64))
        self.num_full = int(self._full_ends[-1]) if counts else 0
        self._odd_starts = np.array([start for start, _ in odd], np.int64)
        self.odd_rows = np.array([rows for _, rows in odd], np.int64)

    def __len__(self) -> int:
        return self.num_full + len(self.odd_rows)

    def locate(self, blocks: Ids) -> tuple[Ids, Ids]:
        """First sample id and number of rows of each block; both of the shape of `blocks`."""
        starts = np.empty(blocks.shape, np.int64)
        rows = np.full(blocks.shape, self.rows, np.int64)
        is_full = blocks < self.num_full
        full = blocks[is_full]
        extent = np.searchsorted(self._full_ends, full, side="right")
        begin = np.concatenate([[0], self._full_ends])[extent]
        starts[is_full] = self._full_starts[extent] + (full - begin) * self.rows
        odd = blocks[~is_full] - self.num_full
        starts[~is_full] = self._odd_starts[odd]
        rows[~is_full] = self.odd_rows[odd]
        return starts, rows


def _most_common_rows(extents: Sequence[Extent]) -> int:
    """The block length that most whole blocks have; that of the largest block if none is whole."""
    count: Counter[int] = Counter()
    for extent in extents:
        count[extent.block_rows] += extent.full[1]
    best = max(count.values(), default=0)
    if best == 0:
        return max((extent.block_rows for extent in extents), default=1)
    return min(rows for rows, times in count.items() if times == best)


def _cut(extent: Extent, first: int, stop: int, offset: int) -> list[tuple[int, int]]:
    """(first sample id, rows) of the blocks that the chunk grid cuts rows [first, stop) into."""
    if first >= stop:
        return []
    grid = range((first // extent.block_rows + 1) * extent.block_rows, stop, extent.block_rows)
    edges = [first, *grid, stop]
    return [(a + offset, b - a) for a, b in pairwise(edges)]
