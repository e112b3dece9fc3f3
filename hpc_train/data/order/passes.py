"""Epochs of any length: passes over the data, cut where an epoch shall end.

    passes    [ 0: all samples once     ][ 1: all samples once     ] ...    each shuffled anew
    epochs    [ 0   ][ 1   ][ 2   ][ 3   ][ 4   ] ...                       `length` samples each

So every sample is used as often as every other, but for one time.
"""

from __future__ import annotations

import numpy as np

from hpc_train.data.blocks import Ids
from hpc_train.data.order.order import Order
from hpc_train.plan import Batch


class Passes:
    """Epochs of `length` samples out of `order`, whose epochs have `num_samples`.

    Args:
        order: gives each pass.
        num_samples: of a pass, >= 1.
        length: of an epoch, >= 1.
    """

    def __init__(self, order: Order, num_samples: int, length: int) -> None:
        self._order = order
        self._num_samples = num_samples
        self._length = length
        self.uses_blocks = order.uses_blocks

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch` in cutting order, pass after pass, shape (batch.size,)."""
        first = batch.epoch * self._length + batch.first
        last = first + batch.size
        parts = []
        while first < last:
            number, begin = divmod(first, self._num_samples)
            end = min(self._num_samples, begin + last - first)
            parts.append(self._order.ids(Batch(batch.number, number, begin, end)))
            first += end - begin
        return np.concatenate(parts)
