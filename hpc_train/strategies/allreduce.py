"""Synchronous training: gradients are summed over all ranks, every rank makes the same update.

1 backward     each rank: gradients of the sum of weight x loss over its samples
2 reduce       the arenas are summed over all ranks
3 agree        the tally is summed: weights, losses, flags
4 update       the same on every rank, with the gradient divided by the sum of weights

All of it is what `LockStep` does; since weights are equal after every step, it can also go on
with other ranks than it began with.

Large sums of the ranks of one node lie there once, and all read them in one place (`once`).

Where the optimizer is element-wise and the ranks of a node share memory, parameters and optimizer
state lie there once, and each rank reduces and updates its slice of them (`shards`). 3 is then the
commit point: a rank that is lost before it leaves a batch that is done again, one that is lost
after it an update that the others finish (`journal`).

There, ranks with less than a core hand in what 3 needs, and the others do 2 and 4 without them
(`comm.delegation`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpc_train.comm import Comm, Delegation, delegation
from hpc_train.optim import clip_factor
from hpc_train.record import operation, phase
from hpc_train.schedule import Scheduler
from hpc_train.strategies.journal import Journal
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.lockstep import LockStep, Outcome
from hpc_train.strategies.once import ReadOnce
from hpc_train.strategies.reduction import Reduction
from hpc_train.strategies.reductions import Means, follow
from hpc_train.strategies.shards import Shards, Sliced, memory_for, saved_bytes, settle_in
from hpc_train.strategies.tally import Layout, Tally, Total

logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.float64)
# below, an update takes less time than the ranks need to meet once more
_SMALL_BYTES = 64 * 2**10
# or than a journal costs; measured in whole runs: at 0.7 MiB the whole update is faster by a
# fiftieth of a step of 9 ms, at 1.5 MiB there is no difference, at 5 MiB it is slower by a tenth
_SMALL_PROTECTED_BYTES = 2**20
# measured with two ranks: from here on one place to read the sum from is worth another barrier
_ONCE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Sharding:
    """Whether each rank of a node updates a slice.

    Attributes:
        wanted: "auto" where that is faster.
        survives: whether the run shall go on without ranks that die.
        respawns: whether others shall be started in their place.
        rewrites: whether something else changes parameters after each update.
        needs_gradients: whether something needs all of the summed gradient after an update.
    """

    wanted: bool | Literal["auto"] = "auto"
    survives: bool = False
    respawns: bool = False
    rewrites: bool = False
    needs_gradients: bool = False


class AllReduce(LockStep):
    """Synchronous data parallelism with one reduction of each arena."""

    def __init__(
        self,
        comm: Comm,
        model: nn.Module,
        learners: Sequence[Learner],
        layout: Layout,
        scheduler: Scheduler,
        means: Means,
        sharding: Sharding = Sharding(),
    ) -> None:
        self._sharding = sharding
        self._shards: dict[str, Shards] = {}
        self._journal: Journal | None = None
        self._delegation: Delegation | None = None  # where some only hand in
        self._asked = False  # whether that was decided
        self._updates = 0  # attempts to make one, since the ranks are who they are
        self._open: tuple[Learner, Tally] | None = None  # what has begun and not yet ended
        self._outcome: Outcome | None = None  # of it, once this rank's part is done
        # the ranks of one node sum slices by themselves, unless another way is asked for
        exact = means.compression.name in ("none", "auto")
        self._by_slices = exact and means.collective in ("auto", "shared") and not means.overlap
        super().__init__(comm, model, learners, layout, scheduler, means)

    def begin(self, learner: Learner) -> None:
        """Get ready for the gradients of `learner`; with all ranks, if they read the last sum."""
        self._take_back()
        super().begin(learner)

    def finish(self, learner: Learner, tally: Tally) -> Outcome:
        """As of all that go in step; a rank that failed may come here without having begun."""
        self._take_back()
        return super().finish(learner, tally)

    def regroup(self, layout: Layout, scheduler: Scheduler) -> None:
        """Make anew what depends on who the ranks are; collective. Weights stay as they are."""
        self._regroup(layout, scheduler)
        debts = {name: reduction.debts() for name, reduction in self._reductions.items()}
        self._close_reductions()
        self._decision = follow(self._comm, self._learners, self._means, self._decision)
        made = self._make_reductions()
        try:
            for name, reduction in made.items():
                reduction.inherit(debts[name])
        except BaseException:  # another rank died
            for reduction in made.values():
                reduction.close()
            raise
        self._reductions = made

    def recover(self, *, is_open: bool) -> tuple[Learner, Outcome] | None:
        """After ranks were lost, and before `regroup`: a phase that was open is ended; collective.

        Args:
            is_open: whether this rank has begun a phase that did not end.

        Returns:
            The phase and what became of it, if all ranks had agreed on that; else None, and it is
            as if it had never begun.
        """
        found = self._complete() if self._journal is not None else None
        if found is None and is_open:
            self._buffers.restore()
        return found

    def _arrange(self) -> None:
        """Decide who updates what, at first; then begin with slices for these ranks."""
        if not self._asked:
            self._asked = True
            self._shard()
        for shards in self._shards.values():
            shards.regroup()
        if not all(shards.sums for shards in self._shards.values()):
            for shards in self._shards.values():
                shards.forgo_sums()
        self._delegation = delegation(self._comm) if self._sums_slices else None
        if self._journal is not None:
            self._journal.reset(self._comm)
        self._updates = 0
        self._open = None

    def _make_reductions(self) -> dict[str, Reduction]:
        if self._sums_slices:
            return {learner.name: Sliced(learner) for learner in self._learners}
        return self._read_once() or super()._make_reductions()

    @property
    def _sums_slices(self) -> bool:
        """Whether each rank sums its slice of the gradients, too, and nobody needs the others'."""
        return bool(self._shards) and all(shards.sums for shards in self._shards.values())

    def _read_once(self) -> dict[str, Reduction]:
        """Sums that lie once in the only node; nothing, if that is not possible, or not worth it.

        Collective.
        """
        arenas = [arena for learner in self._learners for arena in learner.arenas]
        fits = all(a.data.device.type == "cpu" and a.data.dtype in _DTYPES for a in arenas)
        if self._shards or not self._by_slices or not all(self._comm.gather(fits)):
            return {}
        if sum(arena.grad.nbytes for arena in arenas) < _ONCE_BYTES:
            return {}
        try:
            return {one.name: ReadOnce(one, self._comm) for one in self._learners}
        except LookupError:
            return {}

    def _reading(self, learner: Learner) -> ReadOnce | None:
        found = self._reductions[learner.name]
        return found if isinstance(found, ReadOnce) else None

    def _take_back(self) -> None:
        """Wait until nobody reads the sums of the last step, in place of which gradients come."""
        for learner in self._learners:
            if (reading := self._reading(learner)) is not None:
                reading.take_back()

    def _shard(self) -> None:
        """Let parameters and optimizer state lie once in each node, if that is possible."""
        if self._sharding.wanted is False or self._comm.world.size == 1:
            return
        problem = self._problem()
        if problem is None and self._sharding.wanted == "auto" and self._is_small():
            return
        journal = None
        if problem is None and self._is_protected:
            journal = self._make_journal()
            problem = "shared memory is short" if journal is None else None
        memory = [] if problem else [memory_for(one, self._comm) for one in self._learners]
        if any(one is None for one in memory):
            problem = "shared memory is short"
        if problem is None:
            self._journal = journal
            for learner, lent in zip(self._learners, memory, strict=True):
                assert lent is not None
                settle_in(learner, lent, self._once)
            self._shards = {
                learner.name: Shards(learner, self._comm, journal, sums=self._by_slices)
                for learner in self._learners
            }
            logger.debug("each rank of a node updates a slice of the parameters they share")
        elif self._sharding.wanted is True:
            logger.warning(
                "every rank makes the whole update (strategy.shard_optimizer: true): %s", problem
            )

    def _problem(self) -> str | None:
        """Why ranks cannot update slices; the same on all of them."""
        sharding, world = self._sharding, self._comm.world
        arenas = [arena for learner in self._learners for arena in learner.arenas]
        fits = all(a.data.device.type == "cpu" and a.data.dtype in _DTYPES for a in arenas)
        if any(learner.kind.kernel is None for learner in self._learners):
            return "the optimizer treats each layer as a whole"
        if not all(self._comm.gather(fits)):
            return "the parameters do not lie in the memory of the host"
        if len(set(world.nodes)) == world.size:
            return "no two ranks share a node"
        if sharding.needs_gradients:
            return "compress.prune needs all of the gradient on each rank"
        if self._is_protected:
            if world.num_nodes > 1:
                return "ranks on several nodes may be lost"
            if sharding.respawns:
                return "ranks that are started later have no part in the memory of the others"
            if sharding.rewrites:
                return "what changes parameters after an update cannot be undone if a rank is lost"
        return None

    @property
    def _is_protected(self) -> bool:
        """Whether the run goes on without ranks that die, also in the middle of an update."""
        return self._comm.fault_tolerant and self._sharding.survives

    def _is_small(self) -> bool:
        arenas = [arena for learner in self._learners for arena in learner.arenas]
        size = sum(arena.grad.nbytes for arena in arenas)
        return size <= (_SMALL_PROTECTED_BYTES if self._is_protected else _SMALL_BYTES)

    def _make_journal(self) -> Journal | None:
        block = max(saved_bytes(learner) for learner in self._learners)
        size = Journal.num_bytes(self._layout.size, block)
        parts = self._comm.node.share(size)
        return None if parts is None else Journal(parts, self._layout.size)

    def _once(self, act: Callable[[], None], *, alone: bool = False) -> None:
        """Let the first rank of each node do something, while the others wait."""
        if alone:
            act()
            return
        node, error = self._comm.node, None
        node.barrier()
        if node.rank == 0:
            try:
                act()
            except Exception as raised:
                error = raised
        node.barrier()
        if error is not None:
            raise error

    def _assemble(self) -> None:
        if self._delegation is None:
            super()._assemble()

    def _step(self, learner: Learner, tally: Tally) -> Outcome:
        """As without slices; but all meet again, before anybody uses the weights."""
        if not self._shards:
            return super()._step(learner, tally)
        self._updates += 1
        self._open, self._outcome = (learner, tally), None
        if self._delegation is not None:
            outcome = self._delegate(self._delegation, learner, tally)
        else:
            outcome = super()._step(learner, tally)
            if outcome.updated:
                with phase("communication", operation="meet"):
                    operation("meet")
                    self._comm.node.barrier()
        self._open = None
        return outcome

    def _delegate(self, others: Delegation, learner: Learner, tally: Tally) -> Outcome:
        """As a step of slices, but who is short of CPU time only hands in its part of the tally.

        What such a rank has to hear, it hears when everything is done. All name one operation, for
        who is behind the others in these is thought to hang.
        """
        shards, vector = self._shards[learner.name], self._pack(tally)
        counts = self._waited_for()
        is_idle = 0 in counts and counts[self._comm.world.rank] == 0
        with phase("communication", operation="reduce"):
            summed = others.hand_in(vector, is_idle=is_idle)
            shards.cut(others.shares(self.plan.counts))
            if summed is not None and self._is_worth_it(summed):
                squares = np.array([shards.reduce(assembled=True)])
                summed = self._layout.add_squares(summed, float(others.sum(squares)[0]))
        if summed is None:
            with phase("communication", operation="meet"):
                told = others.hear(vector.size, is_idle=is_idle)
            return self._conclude(learner, tally, self._adopt(told))
        outcome = self._conclude(learner, tally, self._adopt(summed))
        if outcome.updated:
            with phase("communication", operation="meet"):
                others.sum(np.zeros(1))
        others.tell(summed)
        return outcome

    def _is_worth_it(self, vector: NDArray[np.float64]) -> bool:
        """Whether gradients that ranks tell this of are to be summed."""
        total = self._layout.unpack(vector)
        return not total.flags["failed"] and total.weight != 0

    def _sum(self, learner: Learner) -> float:
        self._reduce(learner)
        if not self._shards:
            reading = self._reading(learner)
            return 0.0 if reading is None else reading.squares
        shards = self._shards[learner.name]
        shards.cut(self.plan.counts)
        return shards.reduce()

    def _agreed(self, total: Total, vector: NDArray[np.float64]) -> None:
        """The commit point, unless a rank has failed: then all do the batch again, or leave."""
        if self._journal is not None and not total.flags["failed"]:
            self._journal.mine.begin(self._updates, vector)

    def _conclude(self, learner: Learner, tally: Tally, total: Total) -> Outcome:
        """Remember that it was done, in case the others cannot be met afterwards."""
        if not self._shards:
            return super()._conclude(learner, tally, total)
        if self._outcome is None:
            self._outcome = super()._conclude(learner, tally, total)
        return self._outcome

    def _norm(self, learner: Learner, total: Total) -> float:
        by_slices = self._shards or self._reading(learner) is not None
        return math.sqrt(total.squares) if by_slices else super()._norm(learner, total)

    def _update(self, learner: Learner, factor: float) -> None:
        if self._shards:
            self._shards[learner.name].update(factor, self._updates)
        elif (reading := self._reading(learner)) is not None:
            reading.update(factor)
        else:
            super()._update(learner, factor)

    def _complete(self) -> tuple[Learner, Outcome] | None:
        """End the open update, if it was committed; collective among those that are left.

        1 each rank that has not made its slice makes it    2 the first makes all that is left
        """
        journal, node = self._journal, self._comm.node
        assert journal is not None
        node.barrier()  # nobody copies any more what is overwritten now
        newest, found = journal.newest(), None
        if self._open is not None and newest.update == self._updates:
            learner, tally = self._open
            vector = newest.vector(self._layout.size)
            if journal.mine.update != self._updates:
                journal.mine.begin(self._updates, vector)
            total = self._layout.unpack(vector)
            found = learner, self._conclude(learner, tally, total)
        node.barrier()
        if found is not None and found[1].updated and self._comm.world.is_coordinator:
            learner, outcome = found
            factor = clip_factor(outcome.norm, learner.clip_norm) / outcome.total.weight
            self._shards[learner.name].complete(factor, self._updates, vector)
        node.barrier()
        self._open = None
        return found
