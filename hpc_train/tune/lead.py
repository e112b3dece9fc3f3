"""Rank 0's share of a study: journal, search and coordinator, and the post between them and ranks.

ranks --> hear --> coordinator --records--> journal --fsync--> disk
                        |                                        |
                        +---orders---> held back until their records are there ---> ranks
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from hpc_train.comm import Comm
from hpc_train.config import load, to_toml
from hpc_train.errors import EXIT_DONE, EXIT_REQUEUE
from hpc_train.observe import write_json
from hpc_train.stop import StopFlag
from hpc_train.train.lock import Lock
from hpc_train.tune import warm
from hpc_train.tune.coordinator import Coordinator, Message
from hpc_train.tune.history import History, Trial, apply, replay
from hpc_train.tune.journal import NAME, Journal, Record
from hpc_train.tune.member import Member, inherit
from hpc_train.tune.prepare import Prepared, check_same
from hpc_train.tune.roster import Facts
from hpc_train.tune.search import Search
from hpc_train.tune.space import Space

# before the job's end: what a pause may take
_MARGIN_SECONDS = 60.0
VERSION = 1

Tell = Callable[[Trial, History], None]


@dataclass(frozen=True)
class Ended:
    """How a session ended, on every rank.

    Attributes:
        status: "done", or "paused" if trials are left.
        exit_code: what goes with it.
        finished: number of trials of which nothing is left to do.
        total: number of trials.
        lost: ranks that died.
    """

    status: str
    exit_code: int
    finished: int
    total: int
    lost: int = 0


def deadline(prepared: Prepared, environ: Mapping[str, str], now: float) -> float:
    """When no trial may run any more: `study.wall_time`, or the end of the Slurm job.

    Args:
        now: seconds since the epoch.
    """
    seconds = prepared.study.wall_seconds
    if seconds is not None:
        return now + seconds
    end = environ.get("SLURM_JOB_END_TIME", "")
    return float(end) - _MARGIN_SECONDS if end.isdigit() else math.inf


class Lead:
    """Hears ranks, decides and lets them know, in the thread of rank 0's own training.

    Args:
        prepared: the study.
        comm: all ranks of the job.
        member: rank 0 as one of those that train.
        stop: raised when all trials shall be saved.
        tell: hears of each trial that is finished.
        stack: closes what this opens.

    Raises:
        HpcTrainError: if the folder holds another study, is in use, or cannot be written.
    """

    def __init__(
        self,
        prepared: Prepared,
        comm: Comm,
        member: Member,
        stop: StopFlag,
        tell: Tell,
        stack: ExitStack,
    ) -> None:
        self._prepared = prepared
        self._member = member
        self._stop = stop
        self._tell = tell
        self._told = False
        self._held: deque[tuple[int, int, Message]] = deque()  # record, rank, order
        self._acted = 0
        self._seconds = {True: 0.0, False: 0.0}  # of turns in which something happened, and others
        now = time.time()
        prepared.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(prepared.folder, os.environ, what="study's folder", key="study.dir")
        stack.enter_context(lock.acquire())
        self._journal = stack.enter_context(Journal(prepared.folder / NAME))
        self._history = replay(self._journal.records)
        self._begin(comm, now)
        search, space = _search(prepared, self._history, self._journal.records)
        facts = Facts(
            comm.world.nodes,
            prepared.total,
            prepared.size,
            deadline=deadline(prepared, os.environ, now),
            inherit=partial(inherit, prepared.folder),
        )
        self._coordinator = Coordinator(
            prepared.study, space, search, self._history, self._record, self._send, facts
        )

    def hear(self, rank: int, message: Message) -> None:
        """Hear what a rank says."""
        with self._turn():
            self._hear(rank, message, time.time())

    def pump(self) -> None:
        """Hear all ranks, decide, and send what has been decided."""
        with self._turn():
            box, coordinator, now = self._member.box, self._coordinator, time.time()
            while (found := box.take()) is not None:
                self._hear(*found, now)
            if box.gone:
                coordinator.lose(set(box.gone), now)
            coordinator.stopping = coordinator.stopping or self._stop.is_set
            coordinator.decide(now)
            if coordinator.is_over and not self._told:
                self._told = True
                end = self._end()
                for rank in sorted(coordinator.alive, reverse=True):
                    self._send(rank, {"do": "end", **dataclasses.asdict(end)})
            self._release()

    def leave(self) -> None:
        """Close the books."""
        record = {
            "kind": "left",
            "time": time.time(),
            "overhead": round(self._seconds[True], 6),
            "looking": round(self._seconds[False], 6),
            "complete": self._coordinator.is_complete,
        }
        self._note(record)
        self._journal.flush()
        self._member.box.drain()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Add up the seconds of a turn, apart for those in which nothing happened."""
        started, before = time.perf_counter(), self._acted
        try:
            yield
        finally:
            self._seconds[self._acted != before] += time.perf_counter() - started

    def _hear(self, rank: int, message: Message, now: float) -> None:
        self._acted += 1
        self._coordinator.handle(rank, message, now)

    def _end(self) -> Ended:
        done = self._coordinator.is_complete
        return Ended(
            "done" if done else "paused",
            EXIT_DONE if done else EXIT_REQUEUE,
            len(self._history.finished),
            self._prepared.total,
            len(self._member.box.gone),
        )

    def _begin(self, comm: Comm, now: float) -> None:
        """Write what the study is, or check that it is still the same."""
        prepared, history = self._prepared, self._history
        digest = check_same(prepared, history)
        if history.digest is None:
            self._write_files()
            about = {
                "kind": "study",
                "version": VERSION,
                "digest": digest,
                "metrics": prepared.study.metrics,
                "directions": prepared.study.directions,
                "time": now,
            }
            self._note(about)
            for one in prepared.known:
                self._note({"kind": "prior", **one})
        self._note({"kind": "session", "ranks": comm.world.size, "time": now})
        self._journal.flush()

    def _write_files(self) -> None:
        study, folder = self._prepared.study, self._prepared.folder
        write_json(folder / "study.json", study.model_dump(mode="json"))
        config = load(self._prepared.base, study.study.overrides).config
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")

    def _note(self, record: Record) -> None:
        self._journal.append(record)
        apply(self._history, record)

    def _record(self, record: Record) -> None:
        self._acted += 1
        self._journal.append(record)
        if record["kind"] == "finished":
            apply(History(trials=self._history.trials), record)
            self._tell(self._history.trials[record["trial"]], self._history)

    def _send(self, rank: int, order: Message) -> None:
        """Send an order as soon as the records before it are on the disk."""
        self._acted += 1
        if order.get("at_once"):
            self._deliver(rank, order)
        else:
            self._held.append((self._journal.written, rank, order))

    def _release(self) -> None:
        while self._held and self._held[0][0] <= self._journal.synced:
            self._acted += 1
            self._deliver(*self._held.popleft()[1:])

    def _deliver(self, rank: int, order: Message) -> None:
        if rank == 0:
            self._member.hear(order)
        else:
            self._member.box.post(rank, order)


def _search(prepared: Prepared, history: History, records: list[Record]) -> tuple[Search, Space]:
    """The search as it was when the journal ended, and the space that it searches."""
    study, space = prepared.study, prepared.space
    best = warm.good(history.prior, study.directions, study.history.good)
    first = [dict(one["params"]) for one in best[: study.history.repeat]]
    prior = history.prior
    if study.history.use == "region" and best:
        space, prior = warm.narrowed(space, best), []
    search = Search(study, space, prior, first)
    for record in records:
        if record["kind"] == "asked":
            search.adopt(record["params"])
        elif record["kind"] == "reported":
            values = [math.nan if v is None else v for v in record["values"]]
            search.report(record["trial"], record["step"], values)
        elif record["kind"] == "finished":
            search.tell(record["trial"], record["state"], record["values"])
    return search, space
