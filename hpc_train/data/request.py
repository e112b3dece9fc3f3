"""Samples to gather, located: which rows of which blocks, and their places in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Key


@dataclass(frozen=True)
class Part:
    """Rows of one block (or shard): their places in the batch and numbers, each of shape (n,)."""

    key: Key
    places: Ids
    rows: Ids


@dataclass(frozen=True)
class Request:
    """Samples to gather, located.

    Attributes:
        ids: the samples, shape (n,).
        shards, rows: where each of their rows is, shape (n,), or (n * span,) for windows.
        parts: the rows by block, in the order of (shard, number).
        skipped: how many more there would be if they could be read.
    """

    ids: Ids
    shards: Ids
    rows: Ids
    parts: list[Part]
    skipped: int = 0

    def by_shard(self) -> Iterator[Part]:
        """The same by shard, for rows that need no block."""
        for shard in np.unique(self.shards):
            places = np.flatnonzero(self.shards == shard)
            yield Part((int(shard), 0), places, self.rows[places])
