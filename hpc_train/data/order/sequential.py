"""No shuffling: samples in the order of their ids."""

from __future__ import annotations

import numpy as np

from hpc_train.data.blocks import Blocks, Ids
from hpc_train.plan import Batch


class SequentialOrder:
    """Sample k of every epoch is sample id k."""

    uses_blocks = True

    def __init__(self, blocks: Blocks, seed: int = 0, window: int = 1) -> None:
        self._num_samples = blocks.num_samples

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch`, shape (batch.size,)."""
        return np.arange(batch.first, batch.last, dtype=np.int64)
