"""Blocks in memory within a byte budget: what will be wanted stays, the rest goes by last use."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.routes import Rows

Key = tuple[int, int]  # (shard, number of the block in it)


class Block(NamedTuple):
    """The rows of a block, by field; fields that need no blocks are not in it.

    Attributes:
        num_bytes: what it counts in the budget.
        roots: for each field the memory that it is a part of, shape (bytes,), and where it begins.
    """

    fields: dict[str, Rows]
    num_bytes: int
    roots: dict[str, tuple[NDArray[np.uint8], int]]


class Cache:
    """Blocks by key; not thread-safe, and it reads nothing.

    `want` announces uses to come, `unwant` takes them back. A wanted block is never dropped: where
    the rest leaves too little room for a new block, that one is not kept.

    Attributes:
        capacity: the budget in bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held_bytes = 0
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._wanted: Counter[Key] = Counter()
        self._wanted_bytes = 0  # of blocks that are held and wanted

    def __contains__(self, key: Key) -> bool:
        return key in self._blocks

    def get(self, key: Key) -> Block | None:
        """The block, if it is held."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: Key, block: Block) -> None:
        """Keep a block if there is room for it, dropping the one unused for longest first."""
        if key in self._blocks or not self.has_room(block.num_bytes):
            return
        unwanted = (old for old in list(self._blocks) if not self._wanted[old])
        while self._held_bytes + block.num_bytes > self.capacity:
            self._held_bytes -= self._blocks.pop(next(unwanted)).num_bytes
        self._blocks[key] = block
        self._held_bytes += block.num_bytes
        self._wanted_bytes += block.num_bytes if self._wanted[key] else 0

    def has_room(self, num_bytes: int) -> bool:
        """Whether so many bytes fit beside the blocks that are wanted."""
        return self._wanted_bytes + num_bytes <= self.capacity

    def is_wanted(self, key: Key) -> bool:
        """Whether uses of the block are to come."""
        return self._wanted[key] > 0

    def want(self, keys: Iterable[Key]) -> None:
        """Each of `keys` will be used once more."""
        for key in keys:
            self._wanted[key] += 1
            if self._wanted[key] == 1 and key in self._blocks:
                self._wanted_bytes += self._blocks[key].num_bytes

    def unwant(self, keys: Iterable[Key]) -> None:
        """Each of `keys` was used, or will not be."""
        for key in keys:
            self._wanted[key] -= 1
            if self._wanted[key] == 0:
                del self._wanted[key]
                if key in self._blocks:
                    self._wanted_bytes -= self._blocks[key].num_bytes

    def clear(self) -> None:
        """Forget all blocks; what is wanted stays wanted."""
        self._blocks.clear()
        self._held_bytes = self._wanted_bytes = 0
