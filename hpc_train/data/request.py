"""Samples to gather, located: which rows of which blocks, and their places in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Key


class Part(NamedTuple):
    """Rows of one block (or shard): their places in the batch and numbers, each of shape (n,)."""

    key: Key
    places: Ids
    rows: Ids


@dataclass(frozen=True)
class Request:
    """Samples to gather, located.

    Attributes:
        ids: the samples, shape (n,).
        shards, rows, numbers: where each of their rows is, and the number of its block in the
            shard, shape (n,), or (n * span,) for windows.
        skipped: how many more there would be if they could be read.
    """

    ids: Ids
    shards: Ids
    rows: Ids
    numbers: Ids
    skipped: int = 0

    @cached_property
    def parts(self) -> list[Part]:
        """The rows by block, in the order of (shard, number)."""
        by_block = np.lexsort((self.numbers, self.shards))
        shards, numbers = self.shards[by_block], self.numbers[by_block]
        rows = self.rows[by_block]
        changes = np.flatnonzero((np.diff(shards) != 0) | (np.diff(numbers) != 0)) + 1
        edges = [0, *changes.tolist(), len(by_block)]
        return [
            Part((int(shards[first]), int(numbers[first])), by_block[first:stop], rows[first:stop])
            for first, stop in pairwise(edges)
            if first < stop
        ]

    @cached_property
    def of_shards(self) -> list[int]:
        """The shards that hold some of the rows."""
        if len(self.shards) and (self.shards == self.shards[0]).all():
            return [int(self.shards[0])]
        return [int(shard) for shard in np.unique(self.shards)]

    def by_shard(self) -> Iterator[Part]:
        """The same by shard, for rows that need no block."""
        if len(self.of_shards) == 1:
            yield Part((self.of_shards[0], 0), np.arange(len(self.rows)), self.rows)
            return
        for shard in self.of_shards:
            places = np.flatnonzero(self.shards == shard)
            yield Part((shard, 0), places, self.rows[places])
