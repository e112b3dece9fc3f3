"""The loop's side of a parameter server: ranges of batches, and news of what became of them.

for each of my ranges:    compute, push                      all ranks, each at its own pace
                          what has got its update: records   rank 0
at the end:               all ranks are at the same batch    save, leave, or go on
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_train.errors import ConfigError
from hpc_train.plan import Segment, Work
from hpc_train.strategies import Strategy
from hpc_train.strategies.parameter_server import Commit, Ending, ParameterServer
from hpc_train.tasks import Reinforcement
from hpc_train.train.technique import Technique
from hpc_train.world import RankError

if TYPE_CHECKING:
    from hpc_train.train.loop import Loop

logger = logging.getLogger(__name__)


@dataclass
class Central:
    """Trains segments with a parameter server.

    Args:
        loop: whose position and records these are.
        strategy: the server, or a worker of it.
    """

    loop: Loop
    strategy: ParameterServer
    _told: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        parts = self.loop.parts
        found = [m.name for m in parts.techniques.members if _meets(m)]
        if isinstance(parts.task, Reinforcement):
            found.append("reinforcement learning")
        if found:
            error = ConfigError(
                f"with a parameter server ranks do not meet in every step, as {found[0]} needs",
                where="strategy.name",
                hint='use strategy.name = "allreduce"',
            )
            error.agreed = True
            raise error
        self.strategy.after_update(self.loop.parts.techniques.updated)

    def train(self, segment: Segment) -> None:
        """Train the batches of a segment, or to where the run was asked to leave.

        Raises:
            RankError: on every rank, all at the same batch, if one has failed.
        """
        loop = self.loop
        while loop.batch < segment.stop and not loop.place.leaving:
            step = loop.step
            try:
                self._work(segment)
            except RankError:
                self._meet(step, self.strategy.ending)
                raise
            ending = self.strategy.ending
            self._meet(step, ending)
            loop.place.leaving = bool({"stop", "preempted"} & set(ending.flags))
            if "save" in ending.flags:
                loop.save_now()

    def _work(self, segment: Segment) -> None:
        self._told = time.perf_counter()
        for work in self.strategy.work(self.loop.batches(segment)):
            self.loop.train_work(work)
            self._hear()

    def _hear(self) -> None:
        """Record what has got its update since the last time."""
        commits = self.strategy.take()
        seconds = time.perf_counter() - self._told
        for commit in commits:
            self._tell(commit, seconds / len(commits))
        if commits:
            self._told += seconds

    def _tell(self, commit: Commit, seconds: float) -> None:
        loop, outcome = self.loop, commit.outcome
        loop.step += outcome.updated
        loop.batch += 1
        loop.parts.learners[0].rate = commit.rate
        work = Work(commit.batch, 0, commit.batch.size)
        if not outcome.finite:
            loop.tell_skipped(work, outcome)
        loop.tell_step(work, [outcome], seconds, staleness=commit.staleness)

    def _meet(self, step: int, ending: Ending) -> None:
        """Take up the position that all ranks have now."""
        self._hear()
        self.loop.arrive(ending.batch, step + ending.updates, whole=ending.whole)


def _meets(technique: Technique) -> bool:
    """Whether a technique lets all ranks meet inside a step."""
    return type(technique).stepping is not Technique.stepping


def staleness(strategy: Strategy) -> dict[str, int]:
    """On rank 0 of a parameter server: how many updates lacked how many others, as JSON."""
    found = strategy.staleness if isinstance(strategy, ParameterServer) else {}
    return {str(lacked): found[lacked] for lacked in sorted(found)}
