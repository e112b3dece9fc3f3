"""Parameter server: rank 0 holds the weights; gradients are pushed, weights pulled.

    rank 0                       worker
      <---------- ask --------------     at the beginning of a segment: I am free
      --- work, weights ----------->
                                         gradient of the range
      <---------- push -------------     its gradient, its tally; I am free
      --- work, weights ----------->     weights, if there are newer ones
      ...
      <---------- push -------------
      --- end --------------------->     all batches of the segment have their updates

A gradient that is pushed belongs to a range of a global batch; the update of the batch is made when
all of it has come, with the sum of gradients over the sum of weights: exactly that of synchronous
training, but for the age of the weights (`Dispatcher` says how old they may be). Rank 0 works
itself, too, if it is asked to: then a thread of it talks to the workers, and the updates are made
between its own ranges, so its weights never change under a forward pass.

After Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, and
Ho et al., NIPS 2013, for the bound on staleness.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from hpc_train.comm import Comm, Post
from hpc_train.errors import ConfigError
from hpc_train.plan import Batch, Work
from hpc_train.record import phase
from hpc_train.schedule import Dispatcher, Scheduler
from hpc_train.strategies.buffers import BufferSnapshot, merge_buffers
from hpc_train.strategies.claims import Claims
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.lockstep import Outcome
from hpc_train.strategies.parameter_server.leader import Leader
from hpc_train.strategies.parameter_server.letters import Ending, Push
from hpc_train.strategies.parameter_server.mirror import Mirror, State
from hpc_train.strategies.parameter_server.pool import Pool, reunite
from hpc_train.strategies.parameter_server.server import Commit, Server
from hpc_train.strategies.parameter_server.slicing import num_servers
from hpc_train.strategies.parameter_server.whole import Whole
from hpc_train.strategies.parameter_server.worker import PATIENCE, Worker
from hpc_train.strategies.tally import Layout, Tally
from hpc_train.world import agree

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """What a parameter server is told.

    Attributes:
        staleness: updates that a gradient may lack, >= 0; None for no bound.
        server_trains: whether servers work, too; alone rank 0 always does.
        damping: of updates by their staleness, >= 0, see `Server`.
        seconds: how long a rank may keep others waiting, > 0.
        skips: whether updates that are not finite are left out.
        measures: whether ranges follow measured speeds.
        quantum: ranges are multiples of so many samples, >= 1.
        servers: how many ranks hold a slice of the weights each, >= 1; fewer if there are fewer.
    """

    staleness: int | None = 0
    server_trains: bool = True
    damping: float = 0.0
    seconds: float = 600.0
    skips: bool = False
    measures: bool = False
    quantum: int = 1
    servers: int = 1


class ParameterServer:
    """The strategy: rank 0 serves, the other ranks work, and rank 0 does so as well if told to.

    With several servers, ranks 0 .. k - 1 hold a slice of the weights each, and serve it; rank 0
    still hands out ranges, and decides on updates.

    Attributes:
        plan: the shares that the run begins with.
        apart: whether ranks have worked since they all held the same state, which who calls knows.
        claims: none: ranges are handed out.

    Raises:
        ConfigError: if the task trains several phases, or the optimizer cannot update slices.
    """

    claims: Claims | None = None

    def __init__(
        self,
        comm: Comm,
        model: nn.Module,
        learners: Sequence[Learner],
        layout: Layout,
        scheduler: Scheduler,
        terms: Terms,
    ) -> None:
        if len(learners) > 1:
            raise ConfigError(
                f"a parameter server trains tasks of one phase (phases: "
                f"{', '.join(learner.name for learner in learners)})",
                where="strategy.name",
                hint='use strategy.name = "allreduce"',
            )
        (self._learner,) = learners
        if terms.servers > 1 and self._learner.kind.kernel is None:
            error = ConfigError(
                "servers that hold a slice each need an optimizer that treats every weight alike "
                f"(strategy.servers: {terms.servers})",
                where="optimizer.name",
                hint="use sgd, adam, adamw, rmsprop or adagrad, or strategy.servers = 1",
            )
            error.agreed = True
            raise error
        self._comm = comm
        self._model = model
        self._buffers = BufferSnapshot(model)
        self._layout = layout
        self._terms = terms
        self._state: Callable[[], State] | None = None
        self._tell: Callable[[], None] = lambda: None
        self._after: Callable[[Learner], None] = lambda learner: None
        self.plan = scheduler.plan
        self._server: Server | None = None
        self._pool: Pool | None = None
        self._side = self._make_side(Counter())
        self.apart = False
        self._samples = 0
        self._work = Work(Batch(0, 0, 0, 0), 0, 0)
        self._begun = 0.0
        self.settle()

    def _make_side(self, staleness: Counter[int]) -> Leader | Worker:
        world, terms = self._comm.world, self._terms
        count = num_servers(terms.servers, world.size, trains=terms.server_trains)
        if count < terms.servers and world.is_coordinator:
            logger.warning(
                "%d rank%s left for servers (strategy.servers: %d)",
                count,
                " is" if count == 1 else "s are",
                terms.servers,
            )
        post = self._comm.post(terms.seconds) if world.size > 1 else None
        self._pool = None
        if count > 1 and post is not None:
            self._pool = Pool(self._comm, self._learner, count, post, terms.seconds)
            post = post.watched(self._pool.check)
        if world.rank > 0 and post is not None:
            slices = self._pool.slices if self._pool is not None else None
            return Worker(post, self._learner, terms.seconds, slices)
        return self._make_leader(post, count, staleness)

    def _make_leader(self, post: Post | None, count: int, staleness: Counter[int]) -> Leader:
        world, terms = self._comm.world, self._terms
        trains = terms.server_trains or world.size == 1
        shares = {r: float(n) for r, n in enumerate(self.plan.counts) if r >= count or trains}
        # a rank of share 0 works as well: what it takes depends on how fast it is
        least = min((n for n in shares.values() if n), default=1.0)
        dispatcher = Dispatcher(
            {rank: max(n, least) for rank, n in shares.items()},
            terms.staleness,
            measures=terms.measures,
            quantum=terms.quantum,
        )
        orders = self._pool.orders if self._pool is not None else None
        weights = Whole(self._learner) if orders is None else orders
        server = Server(
            self._learner,
            weights,
            self._layout,
            dispatcher,
            damping=terms.damping,
            skips=terms.skips,
        )
        server.staleness, server.after_update = staleness, self._after
        self._server = server
        workers = set(range(1, world.size))
        side = Leader(
            post,
            server,
            self._layout,
            workers,
            trains=trains,
            seconds=terms.seconds,
            pool=self._pool,
        )
        side.tell = self._tell
        if self._pool is None:
            side.state = self._state
        return side

    @property
    def ending(self) -> Ending:
        """Where all ranks are, after `work` has ended or `RankError` was raised."""
        return self._side.ending

    @property
    def staleness(self) -> Counter[int]:
        """On rank 0: how many updates were made at weights that lacked so many updates."""
        return Counter() if self._server is None else self._server.staleness

    def after_update(self, act: Callable[[Learner], None]) -> None:
        """Call `act` on rank 0 after each update, before anybody gets the weights."""
        self._after = act
        if self._server is not None:
            self._server.after_update = act

    def after_commits(self, tell: Callable[[], None]) -> None:
        """Call `tell` on rank 0 when there is something to `take`, before anybody knows of it."""
        self._tell = tell
        if isinstance(self._side, Leader):
            self._side.tell = tell

    def have_standby(self, state: Callable[[], State]) -> None:
        """Let rank 1 hold what rank 0 does, so that the run survives it; not with several servers.

        Args:
            state: what belongs to the weights; asked for while no update is made.
        """
        self._state = state
        if isinstance(self._side, Leader) and self._pool is None:
            self._side.state = state

    @property
    def mirror(self) -> Mirror | None:
        """On a standby, rank 0 after the last update that it has heard of in this segment."""
        return self._side.mirror if isinstance(self._side, Worker) else None

    @property
    def is_whole(self) -> bool:
        """Whether weights and state here are of one update: rank 0's, or nothing has come yet."""
        return isinstance(self._side, Leader) or not self._side.touched

    @property
    def done(self) -> list[int]:
        """On rank 0: batches that have their update though an earlier one has not."""
        return [] if self._server is None else sorted(self._server.dispatcher.ledger.closed)

    def reunite(self) -> bool:
        """After ranks were lost: get what servers know, each for itself; collective.

        Returns:
            Whether all of the newest state is left, or this rank knows nothing of slices.
        """
        if self._terms.servers == 1:
            return True
        return reunite(self._comm, self._learner, self._pool, apart=self.apart)

    def recover(self, *, is_open: bool) -> None:
        """A range that was begun here is as if it had never been; somebody will have it again."""
        if is_open:
            self._buffers.restore()

    def regroup(self, layout: Layout, scheduler: Scheduler) -> None:
        """Serve, or be served, among other ranks; sums of open batches are forgotten."""
        self.apart = False
        staleness = self.mirror.staleness if self.mirror is not None else self.staleness
        self._layout, self.plan, self._server = layout, scheduler.plan, None
        self._side = self._make_side(staleness)

    def foretell(self, batches: Iterator[Batch]) -> Iterator[Work]:
        """Nothing: what a rank gets next is known when it gets it."""
        return iter(())

    def work(
        self, batches: Iterator[Batch], done: Collection[int] = ()
    ) -> Generator[Work, None, None]:
        """This rank's ranges, as they are handed out; on rank 0 empty ones, too, to tell news.

        Args:
            batches: of a segment.
            done: the numbers of those that have their update, in a segment that was broken off.

        Raises:
            RankError: on every rank, if one of them failed meanwhile.
        """
        self.apart = True
        with self._pool.open() if self._pool is not None else nullcontext():
            with closing(self._side.work(batches, done)) as ranges:
                for work in ranges:
                    self._work, self._begun = work, time.perf_counter()
                    yield work
            self._await_updates()
            if self._side.failed:
                agree(self._comm, self._side.error)
            if self._pool is not None:  # others may want something of this rank
                self._comm.barrier(PATIENCE * self._terms.seconds)

    def _await_updates(self) -> None:
        """Return once this server has made all updates that rank 0 speaks of."""
        if self._pool is not None:
            with phase("waiting", operation="updates"):
                self._pool.wait_for(self._side.last)

    def begin(self, learner: Learner) -> None:
        """Get ready for gradients, and remember the model's buffers."""
        learner.begin()
        self._buffers.take()

    def begin_again(self, learner: Learner) -> None:
        """Forget the gradients, with the model's buffers as they were remembered."""
        learner.begin()
        self._buffers.restore()

    def release(self, phase: str) -> None:
        """Gradients are pushed when all of them are there."""

    def finish(self, learner: Learner, tally: Tally) -> Outcome | None:
        """Push the gradient of the present range.

        Returns:
            None: what becomes of it is known later; or, on a rank that failed, that it has.

        Raises:
            RankError: on the other ranks, if one has failed.
        """
        if tally.flags & {"failed", "non_finite"}:
            self._buffers.restore()
        else:
            self._samples += tally.samples
        if "failed" in tally.flags:
            with phase("waiting", operation="fail"):
                self._side.fail()
            self._await_updates()
            total = self._layout.unpack(self._layout.pack(tally, self._comm.world.rank, None))
            return Outcome(total, updated=False, norm=math.nan, finite=True)
        seconds = time.perf_counter() - self._begun
        told = replace(tally, busy_seconds=seconds if self._work.size else 0.0)
        vector = self._layout.pack(told, self._comm.world.rank, None)
        self._side.push(Push(self._work, vector, self._side.version, learner.factor, seconds))
        if self._side.failed:
            self._await_updates()
            agree(self._comm, self._side.error)
        return None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Nothing: open batches are finished before a save."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Nothing to take up."""

    def close(self) -> None:
        """Nothing waits for gradients."""

    def settle(self) -> None:
        """Give all ranks the weights of the servers, and merge module buffers."""
        merge_buffers(self._model, self._comm, self._samples)
        self._samples = 0
        if self._pool is not None and self.apart:
            self._pool.spread(self._comm)
            return
        for arena in self._learner.arenas:
            host = arena.data.detach().cpu().contiguous()
            self._comm.spread(host.numpy())
            arena.write(lambda data, host=host: data.copy_(host))  # type: ignore[misc]

    def take(self) -> list[Commit]:
        """The commits since the last call, on rank 0; nothing on the others."""
        return self._side.take()
