"""Two-level shuffling: blocks are permuted, then the samples of a window of blocks are mixed.

    slots of the epoch   0 1 2 3 4 5 6 7 ...      the block in slot s is permutation(s)
    windows              [ 0     ][ 1     ]       `window` slots each
    samples of window 0  sorted by key, then taken batch by batch

The mixing is stratified: the k-th sample, in a random order of its block, of a block with L rows
gets the key (k + u) / L, where u runs through a golden-ratio sequence over the blocks of the
window. So every batch takes about the same number from each block, and a rank that is cut the
same part of every batch sees the same few blocks throughout the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train import philox
from hpc_train.data.blocks import Blocks, Ids
from hpc_train.data.order.permutation import Permutation
from hpc_train.data.order.streams import BLOCKS, OFFSET, ROWS
from hpc_train.plan import Batch

_GOLDEN = 0.6180339887498949  # 1 / golden ratio: its multiples fill [0, 1) most evenly
_LOW = np.uint64(2**32 - 1)
_HELD = 3  # windows and epochs that are kept: the current ones, and those read ahead


Places = NDArray[np.unsignedinteger[Any]]  # slots of blocks in a window
Run = tuple[Ids, NDArray[np.float64], Places]  # ids, keys and places of samples


@dataclass(frozen=True)
class _Epoch:
    """The permutation of an epoch, and where its odd blocks lie."""

    permutation: Permutation
    odd_slots: Ids  # ascending, shape (num_odd,)
    surplus: Ids  # rows beyond full ones up to each odd slot, shape (num_odd + 1,)


class WindowOrder:
    """Blocks permuted per epoch, samples mixed within windows of `window` blocks."""

    uses_blocks = True

    def __init__(self, blocks: Blocks, seed: int, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be >= 1 (window: {window})")
        self._blocks = blocks
        self._seed = seed
        self._window = window
        self._num_windows = -(-len(blocks) // window)
        self._epoch = lru_cache(_HELD)(self._make_epoch)
        self._mixed = lru_cache(_HELD)(self._mix)

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch` by the position of their block in the window, shape (n,)."""
        parts, positions = [], []
        index = self._window_of(batch.epoch, batch.first)
        first = batch.first
        while first < batch.last:
            begin, end = self._start(batch.epoch, index), self._start(batch.epoch, index + 1)
            ids, slots = self._mixed(batch.epoch, index)
            stop = min(batch.last, end)
            parts.append(ids[first - begin : stop - begin])
            positions.append(slots[first - begin : stop - begin])
            first, index = stop, index + 1
        # by position alone, also where a batch spans two windows: the cuts stay put
        return np.concatenate(parts)[np.argsort(np.concatenate(positions), kind="stable")]

    def _make_epoch(self, epoch: int) -> _Epoch:
        blocks = self._blocks
        permutation = Permutation(len(blocks), self._seed, BLOCKS, epoch)
        slots = permutation.inverse(np.arange(blocks.num_full, len(blocks)))
        by_slot = np.argsort(slots, kind="stable")
        surplus = np.cumsum(blocks.odd_rows[by_slot] - blocks.rows)
        return _Epoch(permutation, slots[by_slot], np.concatenate([[0], surplus]))

    def _start(self, epoch: int, index: int) -> int:
        """Samples of the epoch before window `index`."""
        held = self._epoch(epoch)
        slot = min(index * self._window, len(self._blocks))
        odd_before = int(np.searchsorted(held.odd_slots, slot))
        return slot * self._blocks.rows + int(held.surplus[odd_before])

    def _window_of(self, epoch: int, sample: int) -> int:
        """The window that holds sample number `sample` of the epoch, by bisection."""
        low, high = 0, self._num_windows - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._start(epoch, middle) <= sample:
                low = middle
            else:
                high = middle - 1
        return low

    def _mix(self, epoch: int, index: int) -> tuple[Ids, Places]:
        """The samples of a window as they are taken, and the slot of each one's block in it."""
        first = index * self._window
        slots = np.arange(first, min(first + self._window, len(self._blocks)))
        blocks = self._epoch(epoch).permutation.forward(slots)
        starts, rows = self._blocks.locate(blocks)
        offset = philox.bits(self._seed, OFFSET, epoch, 1, start=index)[0] / 2**32
        strata = (offset + np.arange(len(slots)) * _GOLDEN) % 1.0
        # 16 bits are sorted in linear time
        place = np.arange(len(slots)).astype(np.uint16 if len(slots) <= 2**16 else np.uint32)
        runs = []
        for length in np.unique(rows):
            same = np.flatnonzero(rows == length)
            # blocks of one length come in the same order in every stratum: a run that is sorted
            same = same[np.argsort(strata[same], kind="stable")]
            found = starts[same, None] + self._shuffled_rows(epoch, blocks[same], length)
            keys = (np.arange(length)[:, None] + strata[same]) / length
            places = np.broadcast_to(place[same], keys.shape)
            runs.append((found.T.ravel(), keys.ravel(), places.ravel()))
        return _merged(runs)

    def _shuffled_rows(self, epoch: int, blocks: Ids, length: int) -> Ids:
        """A random order of the rows of each block, shape (num_blocks, length)."""
        word = np.arange(-(-length // 4), dtype=np.uint64)[None, :]
        block = blocks.astype(np.uint64)[:, None]
        word, block = np.broadcast_arrays(word, block)
        counter = (word, block, np.full_like(word, epoch), np.full_like(word, ROWS))
        words = np.stack(philox.rounds(counter, philox.key_of(self._seed)), axis=-1)
        words = words.reshape(len(blocks), -1)[:, :length]
        # with the number of the row below, ties are in its order, and sorting needs no indices
        return (np.sort(words << 32 | np.arange(length, dtype=np.uint64)) & _LOW).astype(np.int64)


def _merged(runs: Sequence[Run]) -> tuple[Ids, Places]:
    """Ids and places of all runs by (key, place); the keys of each run are ascending."""
    ids, keys, places = (np.concatenate(column) for column in zip(*runs, strict=True))
    if len(runs) == 1 and _ascend(keys):
        return ids, places
    taken = np.argsort(keys, kind="stable")
    if not _ascend(keys[taken]):  # equal keys
        taken = np.lexsort((places, keys))
    return ids[taken], places[taken]


def _ascend(keys: NDArray[np.float64]) -> bool:
    """Whether each is larger than the one before."""
    return bool((keys[1:] > keys[:-1]).all())
