"""Synchronous training: gradients are summed over all ranks, every rank makes the same update.

1 backward     each rank: gradients of the sum of weight x loss over its samples
2 reduce       the arenas are summed over all ranks
3 agree        the tally is summed: weights, losses, flags
4 update       the same on every rank, with the gradient divided by the sum of weights

All of it is what `LockStep` does; since weights are equal after every step, it can also go on
with other ranks than it began with.
"""

from __future__ import annotations

from hpc_train.schedule import Scheduler
from hpc_train.strategies.lockstep import LockStep
from hpc_train.strategies.reductions import follow, make_reductions
from hpc_train.strategies.tally import Layout


class AllReduce(LockStep):
    """Synchronous data parallelism with one reduction of each arena."""

    def regroup(self, layout: Layout, scheduler: Scheduler) -> None:
        """Make anew what depends on who the ranks are; collective. Weights stay as they are."""
        self._regroup(layout, scheduler)
        debts = {name: reduction.debts() for name, reduction in self._reductions.items()}
        for reduction in self._reductions.values():
            reduction.close()
        self._decision = follow(self._comm, self._learners, self._means, self._decision)
        made = make_reductions(self._comm, self._learners, self._means, self._decision)
        for name, reduction in made.items():
            reduction.inherit(debts[name])
        self._reductions = made

    def rollback(self) -> None:
        """Forget a batch that was begun and never finished: module buffers are as before it."""
        self._buffers.restore()
