"""The journal: how far each rank's part of an update is, where all ranks of a node can read it.

    slot of rank r   | update, done | update, opened | vectors of 2 updates | one block, as it was |

1 begin    the vector that all ranks agreed on, then "update k, 0 blocks done": k is committed
2 save     the block's weights and state are copied to the slot, then "block b is open"
3          the block is overwritten
4 close    "b + 1 blocks are done"

Numbers are written last, 8 bytes at once, so at whatever instant a rank is killed, the others find
all of what a number says. An update is committed if any rank, alive or not, has begun it; whoever
is left copies open blocks back and makes those that are not done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import Comm
from hpc_train.comm.arithmetic import raw
from hpc_train.shm import round_up

# (where it is kept, what is kept), bytes
Copies = Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]

_HEAD_BYTES = 64
_LINE_BYTES = 64  # of the cache; to copy to where one begins takes two thirds of the time
_SHIFT = 32  # number of an update << _SHIFT | blocks
_NONE = -1


class Slot:
    """What one rank writes.

    Args:
        memory: shared by the ranks, bytes.
        length: of the vector, as float64.
    """

    def __init__(self, memory: NDArray[np.uint8], length: int) -> None:
        end = _HEAD_BYTES + 2 * 8 * length
        # a third of the time that NumPy takes for a number; also stored as 8 bytes at once
        self._numbers = memory[:16].data.cast("q")
        self._vectors = memory[_HEAD_BYTES:end].view(np.float64).reshape(2, length)
        self._block = memory[_block_start(length) :]

    def reset(self) -> None:
        """As if nothing had ever been written."""
        self._numbers[0], self._numbers[1] = 0, _NONE

    @property
    def update(self) -> int:
        """The number of the last update that was begun; 0 before the first."""
        return self._numbers[0] >> _SHIFT

    @property
    def done(self) -> int:
        """How many blocks of it are done."""
        return self._numbers[0] & ((1 << _SHIFT) - 1)

    @property
    def is_open(self) -> bool:
        """Whether the block after them may be half overwritten; what it was is saved."""
        return self._numbers[1] == self._numbers[0]

    def begin(self, update: int, vector: NDArray[np.float64]) -> None:
        """Commit an update: > all before."""
        self._vectors[update % 2, : vector.size] = vector
        self._numbers[0] = update << _SHIFT

    def vector(self, size: int) -> NDArray[np.float64]:
        """What the last update was begun with."""
        return self._vectors[self.update % 2, :size].copy()

    def copies(self, parts: Sequence[torch.Tensor]) -> Copies:
        """Where parts of one block are saved, one behind the other, and what lies in them."""
        found, start = [], 0
        for part in map(raw, parts):
            found.append((self._block[start : start + part.size], part))
            start += part.size
        return found

    def save(self, copies: Copies) -> None:
        """Open the next block: keep what is about to be overwritten."""
        for kept, part in copies:
            np.copyto(kept, part)
        self._numbers[1] = self._numbers[0]

    def close(self) -> None:
        """The block is done."""
        self._numbers[0] += 1

    def restore(self, parts: Sequence[torch.Tensor]) -> None:
        """Bring the open block back, if there is one."""
        if self.is_open:
            for kept, part in self.copies(parts):
                np.copyto(part, kept)


class Journal:
    """The slots of the ranks of a node.

    Args:
        parts: shared memory of each rank of the node, `num_bytes` each.
        length: the most float64 that a vector has.

    Attributes:
        slots: one for each rank, as they are numbered since the last `reset`.
        rank: the number of this one.
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]], length: int) -> None:
        self._all = [Slot(part, length) for part in parts]
        self.slots = self._all
        self.rank = 0

    @staticmethod
    def num_bytes(length: int, block_bytes: int) -> int:
        """What a slot takes, for vectors of `length` float64 and blocks of `block_bytes`."""
        return _block_start(length) + block_bytes

    def reset(self, comm: Comm) -> None:
        """Begin anew, with ranks that may be fewer; all come from where nothing is open."""
        self.slots, self.rank = self._all[: comm.node.size], comm.node.rank
        self.slots[self.rank].reset()

    @property
    def mine(self) -> Slot:
        """What this rank writes."""
        return self.slots[self.rank]

    def newest(self) -> Slot:
        """The slot of a rank that is furthest."""
        return max(self.slots, key=lambda slot: slot.update)


def _block_start(length: int) -> int:
    """Where the block lies in a slot, with vectors of `length`."""
    return round_up(_HEAD_BYTES + 2 * 8 * length, _LINE_BYTES)
