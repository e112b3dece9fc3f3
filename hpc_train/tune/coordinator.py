"""Rank 0's deciding part of a study: who trains what, heard and told in messages.

    ranks -> coordinator    free | report (trial, step, values, done) | ended (trial, status)
    coordinator -> ranks    train (trial, ranks, ...) | reply (decision) | pause | end

No MPI, no torch: messages come in through `handle`, orders go out through `send`, and time is an
argument. Every change of state is recorded before an order that follows from it is sent; the
sender holds back what must not be known before the record is on the disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hpc_train.config.study import Study
from hpc_train.tune import population
from hpc_train.tune.history import COMPLETE, FAILED, PRUNED, History, Trial, apply, outcome
from hpc_train.tune.journal import Record
from hpc_train.tune.roster import Facts, Roster, Running
from hpc_train.tune.samplers import ADAPTIVE
from hpc_train.tune.search import Search
from hpc_train.tune.space import Space

Message = dict[str, Any]
Send = Callable[[int, Message], None]

_MOST_LOST = 3  # times that the ranks of a trial may die before it counts as failed
_AGAIN_SECONDS = 0.05  # where nothing is heard: until time alone may have changed what is best


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
        self._roster = Roster.of(facts, history, space, may_join=study.groups.join)
        self._resting: set[int] = set()  # members that wait for their generation
        self._adaptive = ADAPTIVE[study.sampler.name]
        self._unheard = set(self._roster.alive)  # ranks that have not said a word yet
        self._look_again = -math.inf
        for trial in history.trials:
            if not trial.is_finished:
                self._take_up(trial)

    # -- what happens ------------------------------------------------------------------------------

    def handle(self, rank: int, message: Message, now: float) -> None:
        """Hear a rank."""
        self._look_again = now
        self._unheard.discard(rank)
        what = message["what"]
        if what == "free":
            self._roster.free.add(rank)
            self.stopping = self.stopping or bool(message.get("stop"))
        elif what == "report":
            self._report(rank, message, now)
        elif what == "ended":
            self._ended(rank, message, now)

    def lose(self, ranks: set[int], now: float) -> None:
        """Hear that ranks died; trials of which none is left are begun again elsewhere."""
        if not ranks & self.alive:
            return
        self._look_again = now
        self._unheard -= ranks
        for run in self._roster.lose(ranks):
            self._lost(run, "all its ranks died", now)

    def decide(self, now: float) -> None:
        """Do all that can be done now: begin generations, ask for trials, start them, join."""
        if now >= self._facts.deadline:
            self.stopping = True
        if self.stopping:
            for run in self._roster.running.values():
                self._pause(run)
            return
        if now < self._look_again or self._unheard:  # the longest trials want a choice of ranks
            return
        self._look_again = now + _AGAIN_SECONDS
        self._next_generation(now)
        self._ask(now)
        self._start(now)
        if not (self._roster.waiting or self._may_ask or self._resting):
            joined = self._roster.joinable(now)
            if joined is not None:
                self._pause(joined)

    @property
    def alive(self) -> set[int]:
        """The ranks that have not died."""
        return self._roster.alive

    @property
    def is_over(self) -> bool:
        """Whether nothing runs, and nothing more will."""
        roster = self._roster
        if roster.running or roster.free != roster.alive:
            return False
        return self.stopping or not (roster.waiting or self._resting or self._may_ask)

    @property
    def is_complete(self) -> bool:
        """Whether all trials of the study are finished."""
        return not self._may_ask and all(trial.is_finished for trial in self.history.trials)

    # -- trials that run ---------------------------------------------------------------------------

    def _report(self, rank: int, message: Message, now: float) -> None:
        trial = self.history.trials[message["trial"]]
        run = self._roster.running.get(trial.number)
        if run is None or rank not in run.ranks:  # its group has lost a rank, and is about to see
            self._send(rank, {"do": "reply", "decision": "go", "at_once": True})
            return
        run.done, run.heard = float(message["done"]), now
        run.begun = message["begun"] if run.begun is None else run.begun
        for step, values in [*message.get("earlier", []), (message["step"], message["values"])]:
            if step not in trial.reports:  # one that is continued repeats what came after its save
                self._reached(trial, step, [_number(value) for value in values], run)
        decision = "prune" if trial.prune else "go"
        if decision == "go" and self._at_boundary(trial) and message["done"] < 1:
            decision = "pause"
        # going on is what a trial does anyway, and it can tell again; all else waits for the disk
        at_once = decision == "go" and message["done"] < 1
        self._send(rank, {"do": "reply", "decision": decision, "at_once": at_once})

    def _reached(self, trial: Trial, step: int, values: list[float], run: Running) -> None:
        """Record an evaluation, and whether it is to be the last."""
        prune = not self._study.population.size and self._search.report(trial.number, step, values)
        self._note(
            {
                "kind": "reported",
                "trial": trial.number,
                "step": step,
                "values": [value if math.isfinite(value) else None for value in values],
                "decision": "prune" if prune else "go",
                "done": round(run.done, 6),
                "time": run.heard,
            }
        )

    def _ended(self, rank: int, message: Message, now: float) -> None:
        run = self._roster.running.get(message["trial"])
        if run is None or rank not in run.ranks:  # it was lost, and may have begun again elsewhere
            return
        self._roster.running.pop(run.trial)
        trial = self.history.trials[run.trial]
        if (status := message["status"]) == "paused":
            self._note({"kind": "paused", "trial": trial.number, "time": now})
            self._take_up(trial)
        elif status == "lost":
            self._lost(run, message["reason"], now)
        else:
            self._finish(trial, status, message["reason"], now)

    def _lost(self, run: Running, reason: str, now: float) -> None:
        self._roster.running.pop(run.trial, None)
        trial = self.history.trials[run.trial]
        self._note({"kind": "lost", "trial": run.trial, "reason": reason, "time": now})
        if trial.lost >= _MOST_LOST:
            self._finish(trial, FAILED, f"{reason}, {trial.lost} times", now)
        else:
            self._roster.waiting.insert(0, run.trial)

    def _finish(self, trial: Trial, status: str, reason: str, now: float) -> None:
        """Record how a trial ended, and let the search hear of it."""
        state, values = FAILED, list[float]()
        if status != FAILED:
            values = outcome(trial, self._study.objective)
            state = PRUNED if trial.prune else COMPLETE
            if not values:
                state, reason = FAILED, "it ended without an evaluation"
            elif not all(math.isfinite(value) for value in values):
                names = ", ".join(self._study.metrics)
                state, reason, values = FAILED, f"{names} is not finite", []
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
        self._roster.learn(trial)

    # -- trials that wait --------------------------------------------------------------------------

    def _take_up(self, trial: Trial) -> None:
        """A trial that does not run: it waits for ranks, or for the rest of its generation."""
        if trial.prune:  # the study was killed between the decision and the end
            self._finish(trial, COMPLETE, "", trial.parts[-1]["stop"] if trial.parts else 0.0)
        elif self._at_boundary(trial):
            self._resting.add(trial.number)
        elif trial.parts:
            self._roster.waiting.insert(0, trial.number)
        else:
            self._roster.waiting.append(trial.number)

    @property
    def _may_ask(self) -> bool:
        return len(self.history.trials) < self._facts.total

    def _ask(self, now: float) -> None:
        """Ask for trials: all at once if results change nothing, else as ranks are free."""
        while self._may_ask:
            if self._adaptive and not self._study.population.size:
                waiting = sum(self._roster.want(number).ranks for number in self._roster.waiting)
                if waiting >= len(self._roster.free):
                    return
            number = len(self.history.trials)
            params = self._search.ask()
            self._note({"kind": "asked", "trial": number, "params": params, "time": now})
            self._roster.waiting.append(number)

    def _start(self, now: float) -> None:
        last = not (self._may_ask or self._resting)
        for place in self._roster.starts(now, widened=last):
            self._begin(place.trial, place.ranks, now)
        idle = self._roster.free == self._roster.alive
        if idle and self._roster.waiting and self._facts.deadline < math.inf:
            self.stopping = True  # none of those that wait would end in time

    def _begin(self, number: int, ranks: Sequence[int], now: float) -> None:
        trial = self.history.trials[number]
        self._roster.begin(number, ranks, now)
        self._note({"kind": "started", "trial": number, "ranks": list(ranks), "time": now})
        order = {"do": "train", "trial": number, "ranks": list(ranks), "params": trial.params}
        for rank in sorted(ranks, reverse=True):
            self._send(rank, {**order, "generation": trial.generation, "steps": [*trial.reports]})

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
        if not self._resting:
            return
        members = [trial for trial in self.history.trials if not trial.is_finished]
        if len(self._resting) < len(members):
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
        self._roster.waiting += [one.trial for one in successors]
        self._resting.clear()

    def _note(self, record: Record) -> None:
        self._record(record)
        apply(self.history, record)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
