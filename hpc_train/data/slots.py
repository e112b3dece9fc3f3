"""The table of blocks that the ranks of a node share: which slot holds which block, who uses it.

    head   hand: where the next slot is looked for                          all words of 64 bits
    key    0 | shard, number          state     EMPTY -> LOADING -> READY -> LOADING -> ...
    owner  who loads or loaded it     sequence  counts how often the slot was given away
    pins   a bit for each rank that uses it; what anybody uses is not given away

Every rank may have `share` slots in use, and there are enough for all ranks or for all blocks: so
a rank below its share always finds a slot that nobody uses, also where another rank died. All
methods are called under one lock that the ranks share. Each word is written at once, and the state
last: whoever dies in the middle leaves a slot that is empty, or one that it was loading.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.cache import Key

EMPTY, LOADING, READY = 0, 1, 2
_HEAD_WORDS = 8
_SHARD_FACTOR = 2**40  # blocks of a shard are fewer
_STRIDE = 256  # slots that are looked at together


class Slots:
    """The table, in memory that others may share; it is zeros at first.

    Args:
        words: at least `words_of(num_slots, num_ranks)` of them, int64.
        num_slots: >= 1.
        num_ranks: >= 1.
    """

    def __init__(self, words: NDArray[np.int64], num_slots: int, num_ranks: int) -> None:
        self._head = words[:_HEAD_WORDS]
        columns = words[_HEAD_WORDS : words_of(num_slots, num_ranks)].reshape(-1, num_slots)
        self._key, self.state, self.owner, self.sequence = columns[:4]
        self._pins = columns[4:].view(np.uint64)  # (words of 64 ranks, num_slots)

    def find(self, key: Key) -> int:
        """The slot that holds a block, or will; -1 if there is none."""
        for slot in np.flatnonzero(self._key == _word(key)):
            if self.state[slot] != EMPTY:
                return int(slot)
        return -1

    def claim(self, key: Key, rank: int) -> int:
        """A slot for a block that `rank` will load, pinned by it; -1 if all are in use."""
        slot = self._unused()
        if slot >= 0:
            self.state[slot] = EMPTY
            self._key[slot] = _word(key)
            self.owner[slot] = rank
            self.sequence[slot] += 1
            self.pin(slot, rank)
            self.state[slot] = LOADING
            self._head[0] = slot + 1
        return slot

    def publish(self, slot: int) -> None:
        """The block is there."""
        self.state[slot] = READY

    def abandon(self, slot: int) -> None:
        """The block will not come; whoever has a pin keeps it."""
        self.state[slot] = EMPTY
        self._key[slot] = 0

    def bury(self, slot: int) -> None:
        """Give back what a rank that died was loading."""
        self.abandon(slot)
        self.unpin(slot, int(self.owner[slot]))

    def pin(self, slot: int, rank: int) -> None:
        """`rank` uses the slot."""
        self._pins[rank // 64, slot] |= _bit(rank)

    def unpin(self, slot: int, rank: int) -> None:
        """`rank` does not use the slot any more."""
        self._pins[rank // 64, slot] &= ~_bit(rank)

    def _unused(self) -> int:
        """The first slot from the hand on that nobody uses or loads, round the table."""
        count = len(self.state)
        hand = int(self._head[0]) % count
        edges = [hand, *range((hand // _STRIDE + 1) * _STRIDE, count, _STRIDE), count]
        edges += [*range(count, count + hand, _STRIDE), count + hand]
        for first, stop in pairwise(edges):
            part = slice(first - count, stop - count) if first >= count else slice(first, stop)
            free = (self._pins[:, part] == 0).all(axis=0) & (self.state[part] != LOADING)
            if free.any():
                return int(part.start + free.argmax())
        return -1


def words_of(num_slots: int, num_ranks: int) -> int:
    """Words of a table."""
    return _HEAD_WORDS + (4 + -(-num_ranks // 64)) * num_slots


def _word(key: Key) -> int:
    """A block as one number > 0."""
    return key[0] * _SHARD_FACTOR + key[1] + 1


def _bit(rank: int) -> np.uint64:
    return np.uint64(1 << rank % 64)
