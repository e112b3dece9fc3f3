"""Sums that lie once in a node, from which every rank makes the whole update.

    reduce      each rank adds up its slice of all gradients, with its squares
    agree       on norm and flags
    update      each scales its slice; barrier; all ranks read the sum where it lies, and update
    take back   barrier: nobody reads the sum any more; before gradients are next written

While it is read, `Arena.grad`, and what optimizer and parameters know as their gradients, are the
sum: nobody may write to it. A rank that is lost in `update` leaves others that have updated, and
some that have not: as when not all of them hear what was agreed on.
"""

from __future__ import annotations

import torch

from hpc_train.comm import Comm, sum_once
from hpc_train.record import operation, phase
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.reduction import Plain
from hpc_train.strategies.shards import squares


class ReadOnce(Plain):
    """The sums of one learner; collective.

    Args:
        learner: whose gradients.
        comm: the ranks, on one node.

    Attributes:
        squares: this rank's part of the sum of squares of the last sum.

    Raises:
        LookupError: on all ranks, if its gradients do not lie in memory that they share.
    """

    def __init__(self, learner: Learner, comm: Comm) -> None:
        self._learner = learner
        self.parts = []
        self.squares = 0.0
        found = sum_once(comm, [arena.grad for arena in learner.arenas], self._look)
        if found is None:
            raise LookupError("the gradients do not lie in memory that the ranks share")
        self._sum = found
        self._mine = [
            total[all_slices[comm.node.rank]]
            for total, all_slices in zip(found.totals, found.slices, strict=True)
        ]
        self._is_read = False

    def _look(self, block: torch.Tensor) -> None:
        self.squares += squares(block)

    def reduce(self) -> None:
        """Add up this rank's slices."""
        self.squares = 0.0
        self._sum.launch()

    def update(self, factor: float) -> None:
        """Update all parameters with `factor` times the sum."""
        self._is_read = True
        for own in self._mine:
            own.mul_(factor)
        with phase("communication", operation="meet"):
            operation("meet")
            self._sum.finish()
        for arena, total in zip(self._learner.arenas, self._sum.totals, strict=True):
            arena.read(total)
        self._learner.step()

    def take_back(self) -> None:
        """Return once every rank has made its last update; gradients are this rank's own again."""
        if not self._is_read:
            return
        with phase("communication", operation="release"):
            operation("release")
            self._sum.release()
        self.close()

    def close(self) -> None:
        """Gradients are this rank's own again; others wait for nothing more."""
        self._is_read = False
        for arena in self._learner.arenas:
            arena.take_back()
