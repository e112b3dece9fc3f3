"""One session of a study: from its folder to its end, on all ranks of the job."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from hpc_train.comm import Comm
from hpc_train.config import load, to_toml
from hpc_train.errors import EXIT_DONE, EXIT_REQUEUE, ConfigError
from hpc_train.observe import write_json
from hpc_train.record import Hook
from hpc_train.stop import StopFlag
from hpc_train.train.device import ready_device, set_threads
from hpc_train.tune import warm
from hpc_train.tune.coordinator import Coordinator, Facts
from hpc_train.tune.history import History, Trial, apply, replay
from hpc_train.tune.journal import NAME, Journal, Record
from hpc_train.tune.member import Member, inherit
from hpc_train.tune.prepare import Prepared
from hpc_train.tune.search import Search
from hpc_train.world import Json, on_coordinator, together

# before the job's end: what a pause may take
_MARGIN_SECONDS = 60.0
VERSION = 1


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


Tell = Callable[[Trial, History], None]


def run(
    prepared: Prepared,
    comm: Comm,
    stop: StopFlag,
    *,
    hooks: tuple[Hook, ...] = (),
    tell: Tell = lambda trial, history: None,
) -> Ended:
    """Search until all trials are finished, the time is up or `stop` is raised.

    A study that was begun before goes on: finished trials are kept, others are continued.

    Args:
        prepared: the study; the same on all ranks.
        comm: all ranks of the job.
        stop: raised when all trials shall be saved.
        hooks: listeners to the phases of this rank.
        tell: hears of each trial that is finished, on rank 0.

    Raises:
        RankError: on every rank, if the folder holds another study or cannot be written.
    """
    base = prepared.config({})
    device = together(comm, lambda: ready_device(base, comm))
    threads = set_threads(base.device.threads, comm)
    member = Member(prepared, comm, device, threads, stop, hooks)
    with ExitStack() as stack:
        lead: list[_Lead] = []

        def begin() -> None:
            lead.append(_Lead(prepared, comm, member, stop, tell, stack))

        on_coordinator(comm, begin)
        if lead:
            member.coordinator, member.pump = lead[0].coordinator, lead[0].pump
        order = member.serve()
        if lead:
            lead[0].leave()
    if order["lost"]:
        comm.shrink()
        order = comm.broadcast(order)
    return Ended(
        **{key: order[key] for key in ("status", "exit_code", "finished", "total", "lost")}
    )


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


class _Lead:
    """Rank 0's share: journal, search, coordinator, and the pump between them and the ranks."""

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
        self._overhead = 0.0
        self._written = 0
        now = time.time()
        self._journal = stack.enter_context(Journal(prepared.folder / NAME))
        history = replay(self._journal.records)
        self._history = history
        self._begin(history, comm, now)
        search, space = _search(prepared, history, self._journal.records)
        facts = Facts(
            comm.world.nodes,
            prepared.total,
            _cached(prepared.size),
            deadline=deadline(prepared, os.environ, now),
            inherit=partial(inherit, prepared.folder),
        )
        self.coordinator = Coordinator(
            prepared.study, space, search, history, self._record, self._send, facts
        )

    def pump(self) -> None:
        """Hear all ranks, decide, and let them know."""
        started = time.perf_counter()
        box, coordinator, now = self._member.box, self.coordinator, time.time()
        before = self._written
        while (found := box.take()) is not None:
            coordinator.handle(*found, now)
        if box.gone:
            coordinator.lose(set(box.gone), now)
        coordinator.stopping = coordinator.stopping or self._stop.is_set
        coordinator.decide(now)
        if coordinator.is_over and not self._told:
            self._told = True
            end = self._end()
            for rank in sorted(coordinator.alive, reverse=True):
                self._send(rank, {"do": "end", **dataclasses.asdict(end)})
        if self._written != before:  # looking in vain while nothing happens is not work
            self._overhead += time.perf_counter() - started

    def leave(self) -> None:
        """Close the books."""
        record = {
            "kind": "left",
            "time": time.time(),
            "overhead": round(self._overhead, 6),
            "complete": self.coordinator.is_complete,
        }
        self._note(record)
        self._member.box.drain()

    def _end(self) -> Ended:
        coordinator = self.coordinator
        done = coordinator.is_complete
        return Ended(
            "done" if done else "paused",
            EXIT_DONE if done else EXIT_REQUEUE,
            len(coordinator.history.finished),
            self._prepared.total,
            len(self._member.box.gone),
        )

    def _begin(self, history: History, comm: Comm, now: float) -> None:
        """Write what the study is, or check that it is still the same."""
        prepared = self._prepared
        digest = prepared.digest()
        if history.digest not in (None, digest):
            raise ConfigError(
                "the folder holds a study with other settings",
                where=str(prepared.folder),
                hint="choose another study.dir, or take the settings back; only study.trials, "
                "study.wall_time and [groups] may change",
            )
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

    def _write_files(self) -> None:
        study, folder = self._prepared.study, self._prepared.folder
        write_json(folder / "study.json", study.model_dump(mode="json"))
        config = load(self._prepared.base, study.study.overrides).config
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")

    def _note(self, record: Record) -> None:
        self._journal.append(record)
        apply(self._history, record)

    def _record(self, record: Record) -> None:
        self._journal.append(record)
        self._written += 1
        if record["kind"] == "finished":
            apply(History(trials=self._history.trials), record)
            self._tell(self._history.trials[record["trial"]], self._history)

    def _send(self, rank: int, order: dict[str, Json]) -> None:
        if rank == 0:
            self._member.hear(order)
        else:
            self._member.box.post(rank, order)


def _search(prepared: Prepared, history: History, records: list[Record]) -> tuple[Search, Any]:
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


def _cached(size: Callable[[dict[str, Any]], tuple[float, int]]) -> Any:
    """The same, asked once for each point."""
    known: dict[str, tuple[float, int]] = {}

    def ask(point: dict[str, Any]) -> tuple[float, int]:
        key = json.dumps(point, sort_keys=True)
        if key not in known:
            known[key] = size(point)
        return known[key]

    return ask
