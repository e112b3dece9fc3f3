"""Partners: with which other sample of its global batch each sample is mixed.

cutting order    0 1 2 3 4 5 ...      a permutation of the batch's places, a pure function of
partner          3 0 5 4 1 2 ...      (seed, epoch, place in the epoch): the same for any split
"""

from __future__ import annotations

import numpy as np

from hpc_train.data.blocks import Ids
from hpc_train.data.order.permutation import Permutation
from hpc_train.data.order.streams import PARTNERS
from hpc_train.philox import derive
from hpc_train.plan import Batch


def partners(seed: int, batch: Batch) -> Ids:
    """For each place of `batch` in cutting order, that of its partner, shape (batch.size,)."""
    own = derive(seed, PARTNERS, batch.epoch, batch.first)
    return Permutation(batch.size, own, PARTNERS, 0).forward(np.arange(batch.size))
