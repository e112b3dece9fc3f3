"""Weighted sampling: how often each sample comes up in an epoch follows its weight.

    samples, in a random order within each block    a     b  c        d        weight >= 0
    their expected uses, one after the other       |-----|--|--------|--------| ... length
    a comb of teeth 1 apart, shifted by u          ^    ^    ^    ^    ^    ^       u in [0, 1)

A sample is used once for each tooth that falls on it: its expected uses rounded up or down, and
right on average ("systematic sampling": Madow and Madow, "On the theory of systematic sampling",
1944). The teeth sum up to the length of the epoch, and each block, and each class, gets its share
but for about one use. What was drawn is then shuffled like any data: a block that comes up more
often gives more samples, all of them in one window.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hpc_train import philox
from hpc_train.data.blocks import Blocks, Extent, Ids
from hpc_train.data.order.order import Order
from hpc_train.data.order.streams import COMB, DRAWS
from hpc_train.plan import Batch

Weights = NDArray[np.float64]
_HELD = 2  # epochs that are kept: this one and the one that is read ahead


class WeightedOrder:
    """Epochs of `length` samples, drawn anew for each by their weights.

    Args:
        blocks: of the data.
        seed: of the run.
        weights: of each sample, >= 0 and finite, with a positive sum, shape (num_samples,).
        length: samples of an epoch, >= 1.
        shuffled: gives the order in which blocks of other lengths are used.

    An epoch is held in memory: 8 bytes for each of its samples.
    """

    def __init__(
        self,
        blocks: Blocks,
        seed: int,
        weights: Weights,
        length: int,
        shuffled: Callable[[Blocks], Order],
    ) -> None:
        self._seed = seed
        self._length = length
        self._weights = weights
        self._shuffled = shuffled
        starts, rows = blocks.locate(np.arange(len(blocks)))
        in_place = np.argsort(starts)
        self._block = np.repeat(np.arange(len(blocks), dtype=np.uint64), rows[in_place])
        self._epoch = lru_cache(_HELD)(self._draw)
        self.uses_blocks = shuffled(blocks).uses_blocks

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch` in cutting order, shape (batch.size,)."""
        drawn, order = self._epoch(batch.epoch)
        return drawn[order.ids(batch)]

    def _draw(self, epoch: int) -> tuple[Ids, Order]:
        """What is used in an epoch, block by block, and the order in which it is."""
        words = philox.bits(self._seed, DRAWS, epoch, len(self._block)).astype(np.uint64)
        mixed = np.argsort(self._block << np.uint64(32) | words, kind="stable")
        shift = philox.bits(self._seed, COMB, epoch, 1)[0] / 2**32
        uses = comb(self._weights[mixed], self._length, float(shift))
        per_block = np.bincount(self._block.astype(np.int64), uses).astype(np.int64)
        most = int(per_block.max())
        drawn = [Extent(0, 0, int(count), most) for count in per_block if count]
        return np.repeat(mixed, uses), self._shuffled(Blocks(drawn))


def comb(weights: Weights, length: int, shift: float) -> Ids:
    """How often each sample is used, shape as of `weights`, summing up to `length`.

    Args:
        weights: >= 0 with a positive sum, shape (n,).
        length: how many uses there are, >= 1.
        shift: of the comb, in [0, 1).
    """
    ends = np.cumsum(weights)
    # rounding may not lose a use, nor give one to a sample without weight at the end
    ends = np.minimum(ends * (length / ends[-1]), length)
    ends[ends == ends[-1]] = length
    # a shift next to 1 is rounded up where `ends` are large
    uses: Ids = np.diff(np.minimum(np.floor(ends + shift), length).astype(np.int64), prepend=0)
    return uses
