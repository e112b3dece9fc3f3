"""What every order gives."""

from __future__ import annotations

from typing import Protocol

from hpc_train.data.blocks import Ids
from hpc_train.plan import Batch


class Order(Protocol):
    """Which samples a global batch holds.

    Attributes:
        uses_blocks: whether neighbours lie in the same blocks, so that reading them whole pays.
    """

    uses_blocks: bool

    def ids(self, batch: Batch) -> Ids:
        """The sample ids of `batch` in cutting order, shape (batch.size,)."""
