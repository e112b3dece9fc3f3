"""The side of rank 0: letters of the workers, updates, and work of its own if it takes part.

    main thread     next()  compute  push()  next()  ...       updates, between its own ranges
    letter thread   reads, sums gradients, hands out           while rank 0 works itself

Without work of its own, the main thread does it all. Whoever touches the server holds the lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator

import torch

from hpc_train.comm import Post
from hpc_train.errors import CommunicationError
from hpc_train.plan import Batch, Work
from hpc_train.record import phase
from hpc_train.strategies.parameter_server import mirror
from hpc_train.strategies.parameter_server.letters import Ending, Push, arrays, work_told
from hpc_train.strategies.parameter_server.mirror import STANDBY, State
from hpc_train.strategies.parameter_server.pool import Pool
from hpc_train.strategies.parameter_server.server import LEAVING, Commit, Server
from hpc_train.strategies.tally import Layout
from hpc_train.world import Json

_NAP_SECONDS = 0.0002
_LOOK_SECONDS = 0.05
_NEWS_SECONDS = 1.0


class Leader:
    """Serves all workers; a worker itself, if `trains`.

    Args:
        post: letters; None if there are no other ranks.
        server: gradients and weights.
        layout: of the tallies.
        workers: the other ranks.
        trains: whether this rank works, too.
        seconds: how long a worker may take for a range.
        pool: if there are several servers: they hold the weights, and get the gradients.

    Attributes:
        version, failed, error, ending, last: as of `Worker`.
        state: what belongs to the weights, for a standby; None if there is none.
        tell: called after updates, before anybody hears of them or gets the weights.
    """

    def __init__(
        self,
        post: Post | None,
        server: Server,
        layout: Layout,
        workers: set[int],
        *,
        trains: bool,
        seconds: float,
        pool: Pool | None = None,
    ) -> None:
        self._post = post
        self._server = server
        self._layout = layout
        self._workers = workers
        self._trains = trains
        self._seconds = seconds
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._crash: Exception | None = None  # of the thread
        self._idle: dict[int, int] = {}  # who is free, and the version of its weights
        self._since: dict[int, float] = {}  # who has a range, and since when
        self._gone: set[int] = set()  # who was told that the segment is over
        self._flags: set[str] = set()
        learner = server.learner
        arenas = learner.arenas if pool is None else []
        self._hosts = [torch.empty_like(arena.grad, device="cpu") for arena in arenas]
        self._pool = pool
        rests = pool is not None and not trains
        self._resting = set(range(1, pool.num_servers)) if pool is not None and rests else set()
        self._told: dict[int, float] = {}  # who has no work of its own, and when it heard of news
        self._latest: Batch | None = None  # the last one that has its update
        self.version = 0
        self.failed = False
        self.error: Exception | None = None
        self.ending = Ending(0, 0, True, ())
        self.state: Callable[[], State] | None = None
        self.tell: Callable[[], None] = lambda: None
        self._news: Batch | None = None  # the last one that has its update, if that is new

    def work(self, batches: Iterator[Batch], done: Collection[int]) -> Generator[Work, None, None]:
        """This rank's ranges; an empty one of the last batch if there is but news to tell."""
        self._gone.clear()
        self._flags.clear()
        self._server.begin(batches, done)
        self._start()
        held = -1  # the version of the weights here, if servers send them
        try:
            while (work := self._next()) is not None:
                if self._pool is not None and work.size:
                    if held != self.version:
                        with phase("communication", operation="pull"):
                            held = self._pool.slices.pull(self.version)
                    self.version = held
                yield work
        finally:
            self._join()

    def push(self, push: Push) -> None:
        """Take in the gradient of this rank's range, and the wishes of this rank."""
        if self._pool is not None and push.work.size and not self.failed:
            with phase("communication", operation="push"):
                self._pool.slices.push(push.work)
        with self._lock:
            self._accept(0, push, [arena.grad for arena in self._server.learner.arenas])
            self._turn()
        if self.failed:
            self._dismiss()

    def fail(self) -> None:
        """This rank has failed; return when all ranks know."""
        self.failed = True
        self._dismiss()

    @property
    def last(self) -> int:
        """How many updates were made, or ordered."""
        return self._server.version

    def take(self) -> list[Commit]:
        """The commits since the last call."""
        with self._lock:
            commits, self._server.commits = self._server.commits, []
        return commits

    def _next(self) -> Work | None:
        server = self._server
        with self._lock, phase("communication", operation="serve"):
            while not self.failed:
                if self._crash is not None:
                    raise self._crash
                self._turn()
                if server.dispatcher.is_over and self._gone == self._workers:
                    break
                work = None
                if self._trains and not self.failed:
                    work = server.dispatcher.ask(0, time.monotonic())
                if work is None and self._news is not None:
                    work = Work(self._news, 0, 0)
                if work is not None:
                    self._news = None
                    self.version = server.version
                    return work
                self._pause()
        if self.failed:
            self._dismiss()
        return None

    def _turn(self) -> None:
        """Make the updates that are due, and answer whoever waits for one."""
        self._server.commit()
        if self._server.commits:
            self._news = self._latest = self._server.commits[-1].batch
            self.tell()
        if self._pool is not None and self._pool.orders is not None:
            self._pool.orders.send()
        broken = self._server.broken
        if broken is not None and self.error is None:
            self.failed, self.error = True, broken.outcome.problem(broken.batch)
        self._answer()

    def _pause(self) -> None:
        """Let something happen: letters, or the thread that reads them."""
        late = [r for r, since in self._since.items() if time.monotonic() - since > self._seconds]
        if self._crash is not None:
            raise self._crash
        if self._pool is not None:
            self._pool.check()
        if late:
            raise CommunicationError(
                f"rank {late[0]} has not finished its range in {self._seconds:g} s",
                where="strategy.timeout",
                hint="see the log of that rank; if a range takes so long, allow more",
            )
        if self._thread is not None:
            self._lock.wait(_LOOK_SECONDS)
        elif not self._read():
            time.sleep(_NAP_SECONDS)

    def _dismiss(self) -> None:
        """Tell all workers that a rank has failed, as they come; then nobody waits for letters."""
        with self._lock, phase("waiting", operation="dismiss"):
            self.ending = self._end()
            self._answer()
            while self._gone != self._workers:
                self._pause()
                self._answer()
        self._join()

    def _read(self) -> bool:
        """Take in one letter; false if there is none."""
        letter = self._post.poll() if self._post is not None else None
        if letter is None or self._post is None:
            return False
        rank, header = letter
        if header["kind"] == "sum" and self._pool is not None and self._pool.orders is not None:
            self._pool.orders.hear(rank, header)
            return True
        self._since.pop(rank, None)
        if header["kind"] == "push":
            if self._pool is None:
                self._post.receive(rank, arrays(self._hosts))
            self._accept(rank, Push.heard(header), self._hosts)
        self.failed = self.failed or header["kind"] == "failed"
        self._idle[rank] = header["version"]
        return True

    def _accept(self, rank: int, push: Push, grads: list[torch.Tensor]) -> None:
        flags = {flag for flag, n in self._layout.unpack(push.tally).flags.items() if n}
        self._flags |= flags & LEAVING
        if self._flags:
            self._server.dispatcher.close()
        if push.work.size and not self.failed:
            self._server.accept(rank, push, grads)

    def _answer(self) -> None:
        """Give those that are free something to do, or tell them that it is over."""
        if self._post is None:
            return
        dispatcher = self._server.dispatcher
        for rank, version in list(self._idle.items()):
            if self.failed or dispatcher.is_over:
                self.ending = self._end()
                self._send(rank, version, self.ending.told(failed=self.failed))
                self._gone.add(rank)
                del self._idle[rank]
                continue
            now = time.monotonic()
            rests = rank in self._resting
            work = self._news_for(rank, now) if rests else dispatcher.ask(rank, now)
            if work is not None:
                self._send(rank, version, {"kind": "work", "work": work_told(work)})
                self._since[rank] = now
                del self._idle[rank]

    def _news_for(self, rank: int, now: float) -> Work | None:
        """An empty range for a server that does nothing else, now and then: so it speaks, too."""
        if self._latest is None or now - self._told.get(rank, 0.0) < _NEWS_SECONDS:
            return None
        self._told[rank] = now
        return Work(self._latest, 0, 0)

    def _send(self, rank: int, version: int, header: dict[str, Json]) -> None:
        """Write to a rank, which has weights of that version; to the standby all that is new."""
        assert self._post is not None
        server = self._server
        mirrors = self.state is not None and rank == STANDBY and not self.failed
        wanted = self._pool is None and (header["kind"] == "work" or mirrors)
        fresh = wanted and version != server.version
        header |= {"fresh": fresh, "version": server.version}
        data = arrays([arena.data for arena in server.learner.arenas]) if fresh else []
        if fresh and mirrors and self.state is not None:
            state = self.state()
            done = sorted(server.dispatcher.ledger.closed)
            header["mirror"] = mirror.header(state, done, server.staleness)
            data += mirror.raw(state.tensors)
        self._post.send(rank, header, data)

    def _end(self) -> Ending:
        ledger = self._server.dispatcher.ledger
        flags = tuple(sorted(self._flags))
        return Ending(ledger.next, self._server.updates, not ledger.closed, flags)

    def _start(self) -> None:
        """Let a thread read letters, if this rank has other things to do."""
        if not self._trains or self._post is None:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve, name="parameter server", daemon=True)
        self._thread.start()

    def _join(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        self.ending = self._end()

    def _serve(self) -> None:
        """The thread: letters in, work out; updates are left to the main thread."""
        try:
            while not self._stop.is_set():
                with self._lock:
                    heard = self._read()
                    if heard:
                        self._answer()
                        self._lock.notify_all()
                if not heard:
                    time.sleep(_NAP_SECONDS)
        except Exception as error:
            self._crash = error
