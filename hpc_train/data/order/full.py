"""Full shuffling: every permutation of the samples, at the price of reading rows at random."""

from __future__ import annotations

import numpy as np

from hpc_train.data.blocks import Blocks, Ids
from hpc_train.data.order.permutation import Permutation
from hpc_train.data.order.streams import FULL
from hpc_train.plan import Batch


class FullOrder:
    """Each epoch is a keyed permutation of all samples; a batch is cut in the order of ids."""

    uses_blocks = False

    def __init__(self, blocks: Blocks, seed: int, window: int = 1) -> None:
        self._num_samples = blocks.num_samples
        self._seed = seed
        self._epoch: tuple[int, Permutation] | None = None

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch`, ascending, shape (batch.size,)."""
        held = self._epoch
        if held is None or held[0] != batch.epoch:
            held = batch.epoch, Permutation(self._num_samples, self._seed, FULL, batch.epoch)
            self._epoch = held
        return np.sort(held[1].forward(np.arange(batch.first, batch.last, dtype=np.int64)))
