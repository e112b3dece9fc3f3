"""The server's state: gradients that have come, updates that are made, and who gets what next.

No MPI and no threads inside: who calls, holds the lock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpc_train.optim import clip_factor
from hpc_train.plan import Batch
from hpc_train.record import phase
from hpc_train.schedule import Dispatcher
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.lockstep import Outcome
from hpc_train.strategies.parameter_server.letters import Push
from hpc_train.strategies.parameter_server.whole import Weights
from hpc_train.strategies.tally import Layout

LEAVING = frozenset({"stop", "preempted", "save", "join"})  # flags for which all ranks must meet


@dataclass(frozen=True)
class Commit:
    """What became of one global batch.

    Attributes:
        batch: the batch.
        outcome: total, norm, whether the weights changed.
        staleness: updates that the weights of its most stale gradient lacked.
        rate: the learning rate of its update.
    """

    batch: Batch
    outcome: Outcome
    staleness: int
    rate: float


class _Sum:
    """The tallies of an open batch so far."""

    def __init__(self, layout: Layout) -> None:
        self.tally = np.zeros(layout.size)
        self.counts = [0] * layout.num_ranks
        self.oldest = -1
        self.factor = 1.0


class Server:
    """Has the gradients of each batch summed, and decides on the update with them.

    Args:
        learner: whose weights are those of the run.
        weights: sums gradients and makes updates.
        layout: of the tallies.
        dispatcher: who gets which range.
        damping: an update at weights that lack n updates is scaled by 1 / (1 + damping n), >= 0
            (after Zhang et al., "Staleness-aware async-SGD for distributed deep learning",
            IJCAI 2016, which divides by n).
        skips: whether an update that is not finite is left out; else it is an error.

    Attributes:
        version: batches that have got their update, or were skipped.
        updates: updates of the present segment.
        commits: what nobody has taken yet, in the order in which they were made.
        staleness: how many updates were made with gradients of each staleness.
        broken: the batch whose loss or gradient is not finite, if that is an error.
        after_update: called after each update, before anybody gets the weights.
    """

    def __init__(
        self,
        learner: Learner,
        weights: Weights,
        layout: Layout,
        dispatcher: Dispatcher,
        *,
        damping: float = 0.0,
        skips: bool = False,
    ) -> None:
        self.learner = learner
        self.weights = weights
        self.dispatcher = dispatcher
        self.version = 0
        self.updates = 0
        self.commits: list[Commit] = []
        self.staleness: Counter[int] = Counter()
        self.broken: Commit | None = None
        self.after_update: Callable[[Learner], None] = lambda learner: None
        self._layout = layout
        self._damping = damping
        self._skips = skips
        self._sums: dict[int, _Sum] = {}

    def begin(self, batches: Iterator[Batch], done: Collection[int]) -> None:
        """Take up the batches of a segment; those that are `done` have their updates already."""
        self.updates = 0
        self.dispatcher.begin(batches, done)

    def accept(self, rank: int, push: Push, grads: Sequence[torch.Tensor]) -> None:
        """Take in the gradient of a range: sums of weight x gradient, one per arena, on the CPU."""
        number = push.work.batch.number
        held = self._sums.setdefault(number, _Sum(self._layout))
        self.weights.add(number, grads)
        held.tally += push.tally
        held.counts[rank] += push.work.size
        held.oldest = push.version if held.oldest < 0 else min(held.oldest, push.version)
        held.factor = push.factor
        self.dispatcher.done(rank, push.work, push.seconds)

    def commit(self) -> None:
        """Make all updates that may be made now."""
        while self.broken is None and (number := self.dispatcher.ready()) is not None:
            commit = self._update(number, self._sums[number])
            if commit is None:
                return
            del self._sums[number]
            if not commit.outcome.finite and not self._skips:
                self.broken = commit
                return
            self.dispatcher.updated(number)
            self.version += 1
            self.updates += commit.outcome.updated
            self.staleness[commit.staleness] += 1
            self.commits.append(commit)

    def _update(self, number: int, held: _Sum) -> Commit | None:
        """What becomes of a batch that is complete; None if its sum is not known yet."""
        total = self._layout.unpack(held.tally)
        total = replace(total, counts=tuple(held.counts))
        stale = self.version - held.oldest
        norm, finite = math.nan, True
        learner = self.learner
        learner.set_rate(held.factor)
        with phase("update"):
            found = self.weights.norm(number)
            if found is None:
                return None
            if total.weight:
                norm = found / total.weight
                finite = math.isfinite(norm) and not total.flags["non_finite"]
            updated = finite and bool(total.weight)
            if updated:
                factor = clip_factor(norm, learner.clip_norm) / total.weight
                self.weights.update(number, factor / (1.0 + self._damping * stale), held.factor)
                self.after_update(learner)
            elif finite or self._skips:
                self.weights.drop(number)
        outcome = Outcome(total, updated, norm, finite, tuple(held.counts))
        return Commit(self.dispatcher.ledger.batch(number), outcome, stale, learner.rate)
