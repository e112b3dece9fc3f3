"""Rank 0's deciding part of a study: who trains what, heard and told in messages.

    ranks -> coordinator    free | report (trial, step, values, done) | ended (trial, status)
    coordinator -> ranks    train (trial, ranks, ...) | reply (decision) | pause | end

No MPI, no torch: messages come in through `handle`, orders go out through `send`, and time is an
argument. Every change of state is in the journal before anybody is told of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_train.config.study import Study
from hpc_train.tune import population
from hpc_train.tune.assign import Want, assign, duration, in_order, join, widen
from hpc_train.tune.durations import Durations
from hpc_train.tune.history import COMPLETE, FAILED, PRUNED, History, Trial, apply, outcome
from hpc_train.tune.journal import Record
from hpc_train.tune.samplers import ADAPTIVE
from hpc_train.tune.search import Search
from hpc_train.tune.space import Point, Space

Message = dict[str, Any]
Send = Callable[[int, Message], None]

_SOON = 1e-3  # seconds: ranks that have left a trial and not said so are worth waiting for
_MOST_LOST = 3  # times that the ranks of a trial may die before it counts as failed


@dataclass(frozen=True)
class Facts:
    """What the coordinator must know of the job and of trials.

    Attributes:
        nodes: the node of each rank.
        total: number of trials.
        size: epochs or steps of a trial, and the ranks that it shall get.
        restart_seconds: what it costs to stop a trial and start it again.
        deadline: when the job ends, in the seconds of `now`; infinity without.
        inherit: lets a trial go on from another one's checkpoint: (trial, donor, generation).
    """

    nodes: Sequence[int]
    total: int
    size: Callable[[Point], tuple[float, int]]
    restart_seconds: float = 5.0
    deadline: float = math.inf
    inherit: Callable[[int, int, int], None] = lambda trial, donor, generation: None


@dataclass
class Running:
    """A trial that is trained now."""

    trial: int
    ranks: set[int]
    started: float
    begun: float | None = None  # which part of it was done when it was started
    done: float = 0.0
    heard: float = 0.0
    asked_to_pause: bool = False


@dataclass
class _State:
    """Who does what."""

    free: set[int] = field(default_factory=set)
    alive: set[int] = field(default_factory=set)
    waiting: list[int] = field(default_factory=list)
    running: dict[int, Running] = field(default_factory=dict)
    resting: set[int] = field(default_factory=set)  # members that wait for their generation


class Coordinator:
    """Decides; one object for each time that a study runs.

    Args:
        study: what was asked for.
        space: what is searched.
        search: who proposes.
        history: what has happened; it is kept up to date.
        record: writes a record into the journal, and returns when it is on the disk.
        send: takes an order to a rank.
        facts: of job and trials.

    Attributes:
        stopping: whether trials are to be saved, and no more started.
        alive: the ranks that have not died.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        search: Search,
        history: History,
        record: Callable[[Record], None],
        send: Send,
        facts: Facts,
    ) -> None:
        self.history = history
        self.stopping = False
        self._study = study
        self._search = search
        self._space = space
        self._record = record
        self._send = send
        self._facts = facts
        self._durations = Durations(space)
        self.alive = set(range(len(facts.nodes)))
        self._s = _State(alive=self.alive)
        self._pace = dict.fromkeys(self.alive, 1.0)
        self._bereaved = False  # then no groups of several ranks can be made any more
        self._may_join = study.groups.join
        self._adaptive = ADAPTIVE[study.sampler.name]
        for trial in history.trials:
            self._learn(trial)
            if not trial.is_finished:
                self._take_up(trial)

    # -- what happens ------------------------------------------------------------------------------

    def handle(self, rank: int, message: Message, now: float) -> None:
        """Hear a rank."""
        what = message["what"]
        if what == "free":
            self._s.free.add(rank)
            self.stopping = self.stopping or bool(message.get("stop"))
        elif what == "report":
            self._report(rank, message, now)
        elif what == "ended":
            self._ended(message, now)

    def lose(self, ranks: set[int], now: float) -> None:
        """Hear that ranks died; trials of which none is left are begun again elsewhere."""
        gone = ranks & self._s.alive
        self._bereaved |= bool(gone)
        self._may_join &= not gone
        self._s.alive -= gone
        self._s.free -= gone
        for run in list(self._s.running.values()):
            run.ranks -= gone
            if not run.ranks:
                self._lost(run, "all its ranks died", now)

    def decide(self, now: float) -> None:
        """Do all that can be done now: begin generations, ask for trials, start them, join."""
        if now >= self._facts.deadline:
            self.stopping = True
        if self.stopping:
            for run in self._s.running.values():
                self._pause(run)
            return
        self._next_generation(now)
        self._ask(now)
        self._start(now)
        if self._may_join and not self._s.waiting:
            self._join(now)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs, and nothing more will."""
        if self._s.running or self._s.free != self._s.alive:
            return False
        return self.stopping or not (self._s.waiting or self._s.resting or self._may_ask)

    @property
    def is_complete(self) -> bool:
        """Whether all trials of the study are finished."""
        return not self._may_ask and all(trial.is_finished for trial in self.history.trials)

    # -- trials that run ---------------------------------------------------------------------------

    def _report(self, rank: int, message: Message, now: float) -> None:
        trial = self.history.trials[message["trial"]]
        step, values = int(message["step"]), [_number(v) for v in message["values"]]
        run = self._s.running.get(trial.number)
        if run is not None:
            run.done, run.heard = float(message["done"]), now
            run.begun = message["begun"] if run.begun is None else run.begun
        if step not in trial.reports:  # one that is continued repeats what came after its save
            prune = not self._study.population.size and self._search.report(
                trial.number, step, values
            )
            self._note(
                {
                    "kind": "reported",
                    "trial": trial.number,
                    "step": step,
                    "values": [v if math.isfinite(v) else None for v in values],
                    "decision": "prune" if prune else "go",
                    "time": now,
                }
            )
        decision = "prune" if trial.prune else "go"
        if decision == "go" and self._at_boundary(trial) and message["done"] < 1:
            decision = "pause"
        self._send(rank, {"do": "reply", "decision": decision})

    def _ended(self, message: Message, now: float) -> None:
        run = self._s.running.pop(message["trial"], None)
        trial = self.history.trials[message["trial"]]
        if run is None or trial.is_finished:
            return
        if (status := message["status"]) == "paused":
            self._note({"kind": "paused", "trial": trial.number, "time": now})
            self._take_up(trial)
        elif status == "lost":
            self._lost(run, message["reason"], now)
        else:
            self._finish(trial, status, message["reason"], now)

    def _lost(self, run: Running, reason: str, now: float) -> None:
        self._s.running.pop(run.trial, None)
        trial = self.history.trials[run.trial]
        self._note({"kind": "lost", "trial": run.trial, "reason": reason, "time": now})
        if trial.lost >= _MOST_LOST:
            self._finish(trial, FAILED, f"{reason}, {trial.lost} times", now)
        else:
            self._s.waiting.insert(0, run.trial)

    def _finish(self, trial: Trial, status: str, reason: str, now: float) -> None:
        """Record how a trial ended, and let the search hear of it."""
        state, values = FAILED, list[float]()
        if status != FAILED:
            values = outcome(trial, self._study.objective)
            state = PRUNED if trial.prune else COMPLETE
            if not values:
                state, reason = FAILED, "it ended without an evaluation"
            elif not all(math.isfinite(value) for value in values):
                state, reason, values = FAILED, f"{self._study.metrics} is not finite", []
        self._note(
            {
                "kind": "finished",
                "trial": trial.number,
                "state": state,
                "values": values,
                "reason": reason,
                "time": now,
            }
        )
        self._search.tell(trial.number, state, values)
        self._learn(trial)

    # -- trials that wait --------------------------------------------------------------------------

    def _take_up(self, trial: Trial) -> None:
        """A trial that does not run: it waits for ranks, or for the rest of its generation."""
        if trial.prune:  # the study was killed between the decision and the end
            self._finish(trial, COMPLETE, "", trial.parts[-1]["stop"] if trial.parts else 0.0)
        elif self._at_boundary(trial):
            self._s.resting.add(trial.number)
        elif trial.parts:
            self._s.waiting.insert(0, trial.number)
        else:
            self._s.waiting.append(trial.number)

    @property
    def _may_ask(self) -> bool:
        return len(self.history.trials) < self._facts.total

    def _ask(self, now: float) -> None:
        """Ask for trials: all at once if results change nothing, else as ranks are free."""
        while self._may_ask:
            if self._adaptive and not self._study.population.size:
                waiting = sum(self._want(number).ranks for number in self._s.waiting)
                if waiting >= len(self._s.free):
                    return
            number = len(self.history.trials)
            params = self._search.ask()
            self._note({"kind": "asked", "trial": number, "params": params, "time": now})
            self._s.waiting.append(number)

    def _start(self, now: float) -> None:
        wants = [self._want(number) for number in self._s.waiting]
        if not self._s.free or not wants:
            return
        spare = len(self._s.free) - sum(want.ranks for want in wants)
        if self._may_join and not self._may_ask and not self._s.resting and spare > 0:
            wants = widen(wants, spare, self._facts.restart_seconds)
        free_at = dict.fromkeys(self.alive, now + _SOON) | dict.fromkeys(self._s.free, now)
        for run in self._s.running.values():
            free_at |= dict.fromkeys(run.ranks, now + max(_SOON, self._left(run, now)))
        for place in assign(in_order(wants), free_at, self._pace, now, self._facts.nodes):
            known = self._seconds(self.history.trials[place.trial]) is not None
            if known and place.finish > self._facts.deadline:
                continue
            if place.start <= now and set(place.ranks) <= self._s.free:
                self._begin(place.trial, place.ranks, now)
        if not self._s.running and self._facts.deadline < math.inf:
            self.stopping = True  # none of those that wait would end in time

    def _begin(self, number: int, ranks: Sequence[int], now: float) -> None:
        trial = self.history.trials[number]
        self._s.waiting.remove(number)
        self._s.free -= set(ranks)
        self._s.running[number] = Running(number, set(ranks), now, heard=now)
        self._note({"kind": "started", "trial": number, "ranks": list(ranks), "time": now})
        order = {"do": "train", "trial": number, "ranks": list(ranks), "params": trial.params}
        for rank in sorted(ranks, reverse=True):
            self._send(rank, {**order, "generation": trial.generation, "steps": [*trial.reports]})

    def _want(self, number: int) -> Want:
        trial = self.history.trials[number]
        seconds = self._seconds(trial)
        size, ranks = self._facts.size(trial.params)
        ranks = 1 if self._bereaved else ranks
        # where nothing is known yet, sizes alone put the longest first
        return Want(number, size * 1e-9 if seconds is None else seconds, ranks)

    def _seconds(self, trial: Trial) -> float | None:
        """What one rank would need for a trial; None if nothing is known."""
        return self._durations.foretell(trial.params, self._facts.size(trial.params)[0])

    def _left(self, run: Running, now: float) -> float:
        """Seconds until a running trial ends: by its progress, else by those that have ended."""
        if run.begun is not None and run.done > run.begun:
            rate = (run.heard - run.started) / (run.done - run.begun)
            return max(0.0, (1 - run.done) * rate - (now - run.heard))
        seconds = self._seconds(self.history.trials[run.trial])
        if seconds is None:
            return math.inf
        return max(0.0, duration(seconds, max(1, len(run.ranks))) - (now - run.started))

    def _join(self, now: float) -> None:
        """Give idle ranks to the trial that would end last, if that ends it sooner."""
        if (
            self._may_ask
            or self._s.resting
            or any(run.asked_to_pause for run in self._s.running.values())
        ):
            return
        left = {
            run.trial: (self._left(run, now), len(run.ranks)) for run in self._s.running.values()
        }
        if all(seconds < math.inf for seconds, _ in left.values()):
            trial = join(left, len(self._s.free), self._facts.restart_seconds)
            if trial is not None:
                self._pause(self._s.running[trial])

    def _pause(self, run: Running) -> None:
        """Ask a trial to save and leave; it is continued, perhaps on more ranks."""
        if not run.asked_to_pause and run.ranks:
            run.asked_to_pause = True
            self._send(min(run.ranks), {"do": "pause", "trial": run.trial})

    # -- populations -------------------------------------------------------------------------------

    def _at_boundary(self, trial: Trial) -> bool:
        """Whether a member has reached the end of its generation."""
        section = self._study.population
        if not section.size or not trial.reports:
            return False
        return max(trial.reports) >= (trial.generation + 1) * section.every

    def _next_generation(self, now: float) -> None:
        members = [trial for trial in self.history.trials if not trial.is_finished]
        if not self._s.resting or len(self._s.resting) < len(members):
            return
        generation = members[0].generation + 1
        sign = 1.0 if self._study.directions[0] == "minimize" else -1.0
        last = {trial.number: trial.reports[max(trial.reports)][0] for trial in members}
        successors = population.evolve(
            self._study.population,
            self._space,
            {number: sign * value for number, value in last.items()},
            {trial.number: trial.params for trial in members},
            generation,
            self._study.study.seed,
        )
        for one in successors:
            if one.donor != one.trial:
                self._facts.inherit(one.trial, one.donor, generation)
        told = [vars(one) for one in successors]
        record = {"kind": "generation", "generation": generation, "members": told, "time": now}
        self._note(record)
        self._s.waiting += [one.trial for one in successors]
        self._s.resting.clear()

    def _note(self, record: Record) -> None:
        self._record(record)
        apply(self.history, record)

    def _learn(self, trial: Trial) -> None:
        """Learn from the seconds of a trial that ran from its beginning to its end in one go."""
        if trial.state != COMPLETE or len(trial.parts) != 1 or not trial.parts[0]["stop"]:
            return
        part = trial.parts[0]
        count = len(part["ranks"])
        seconds = (part["stop"] - part["start"]) / duration(1.0, count)
        self._durations.learn(trial.params, self._facts.size(trial.params)[0], seconds)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
