"""The loop's side of a parameter server: ranges of batches, and news of what became of them.

for each of my ranges:    compute, push                      all ranks, each at its own pace
after each update:        records                            rank 0, before the others get weights
at the end:               all ranks are at the same batch    save, leave, or go on

Where ranks may be lost, rank 1 gets all that rank 0 is with the weights, as of an update that is on
record. Whoever dies: batches without an update begin anew, from the newest state that is left. If
several servers hold slices, all of them must be left; else nobody has a whole state.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_train.errors import ConfigError
from hpc_train.plan import Segment, Work
from hpc_train.strategies import Strategy
from hpc_train.strategies.parameter_server import Commit, Ending, ParameterServer, State
from hpc_train.tasks import Reinforcement
from hpc_train.train import state
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
        survives: whether the run goes on without ranks that die, rank 0 too.
    """

    loop: Loop
    strategy: ParameterServer
    survives: bool = False
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
        self._check_slices()
        self.strategy.after_update(self.loop.parts.techniques.updated)
        self.strategy.after_commits(self._hear)
        if self.survives:
            self.strategy.have_standby(self._state)

    def _check_slices(self) -> None:
        """Refuse what needs all weights after each update, where nobody holds all of them."""
        count = self.loop.parts.config.strategy.servers
        found = [m.name for m in self.loop.parts.techniques.members if _rewrites(m)]
        if count > 1 and found:
            error = ConfigError(
                "several servers hold a slice of the weights each, and nobody all of them, as "
                f"{found[0]} needs after every update (strategy.servers: {count})",
                where="strategy.servers",
                hint="use strategy.servers = 1",
            )
            error.agreed = True
            raise error

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
            if "join" in ending.flags and not loop.place.leaving:
                loop.admit()

    def share(self) -> None:
        """Give all ranks the state of rank 0."""
        state.share(self.loop.parts, 0)
        self.strategy.apart = False

    def rejoin(self) -> None:
        """After ranks were lost: take up what this rank knows of the run, if it knows it all."""
        whole = self.strategy.reunite()
        self._hear()
        loop, place, mirror = self.loop, self.loop.place, self.strategy.mirror
        if not whole:
            place.whole = False
        if not whole or not self.strategy.apart:
            return
        place.whole = self.strategy.is_whole or mirror is not None
        place.done = self.strategy.done
        if mirror is None:
            place.techniques = loop.parts.techniques.notes()
            return
        told, learner = mirror.state.told, loop.parts.learners[0]
        for arena, weights in zip(learner.arenas, mirror.weights, strict=True):
            arena.write(lambda data, weights=weights: data.copy_(weights))  # type: ignore[misc]
        tensors = {**state.collect(loop.parts), **mirror.state.tensors}
        state.adopt(loop.parts, tensors, told["techniques"], "the standby")
        loop.batch, loop.step = told["batch"], told["step"]
        place.techniques, place.done = told["techniques"], list(mirror.done)

    def _state(self) -> State:
        """On rank 0: what belongs to the weights."""
        loop, parts = self.loop, self.loop.parts
        told = {"batch": loop.batch, "step": loop.step, "techniques": parts.techniques.notes()}
        return State(told, state.beside(parts))

    def _work(self, segment: Segment) -> None:
        self._told = time.perf_counter()
        batches, done = self.loop.batches(segment), self.loop.place.done
        with closing(self.strategy.work(batches, done)) as ranges:
            for work in ranges:
                self.loop.train_work(work)

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


def central_of(loop: Loop, strategy: Strategy, *, survives: bool) -> Central | None:
    """The loop's side of a parameter server; None under any other strategy."""
    return Central(loop, strategy, survives) if isinstance(strategy, ParameterServer) else None


def _meets(technique: Technique) -> bool:
    """Whether a technique lets all ranks meet inside a step."""
    return type(technique).stepping is not Technique.stepping


def _rewrites(technique: Technique) -> bool:
    """Whether a technique does something after each update."""
    return type(technique).updated is not Technique.updated


def staleness(strategy: Strategy) -> dict[str, int]:
    """On rank 0 of a parameter server: how many updates lacked how many others, as JSON."""
    found = strategy.staleness if isinstance(strategy, ParameterServer) else {}
    return {str(lacked): found[lacked] for lacked in sorted(found)}
