"""Who is free, who trains what, and what that says of the time to come. Pure.

waiting trials --(lengths foretold, longest first)--> places on free and busy ranks --> starts
running trials --(progress)--> who ends last --> idle ranks join it, if that ends it sooner
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hpc_train.tune.assign import Place, Want, assign, duration, in_order, join, widen
from hpc_train.tune.durations import Durations
from hpc_train.tune.history import COMPLETE, History, Trial
from hpc_train.tune.space import Point, Space

_SOON = 1e-3  # seconds: ranks that have left a trial and not said so are worth waiting for


@dataclass(frozen=True)
class Facts:
    """What must be known of the job and of trials.

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
class Roster:
    """Ranks and trials, and what can be foretold of them.

    Attributes:
        facts: of job and trials.
        history: of the study.
        durations: what is known of lengths.
        may_join: whether idle ranks may join running trials.
        alive: the ranks that have not died.
        free: those with nothing to do.
        waiting: trials that wait for ranks.
        running: those that have some, by number.
        bereaved: ranks died; no groups of several ranks can be made any more.
    """

    facts: Facts
    history: History
    durations: Durations
    may_join: bool
    alive: set[int] = field(default_factory=set)
    free: set[int] = field(default_factory=set)
    waiting: list[int] = field(default_factory=list)
    running: dict[int, Running] = field(default_factory=dict)
    bereaved: bool = False
    _sizes: dict[int, tuple[int, float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Facts, history: History, space: Space, *, may_join: bool) -> Roster:
        """All ranks alive and none free; lengths as the history tells them."""
        alive = set(range(len(facts.nodes)))
        made = cls(facts, history, Durations(space), may_join, alive)
        for trial in history.trials:
            made.learn(trial)
        return made

    def lose(self, ranks: set[int]) -> list[Running]:
        """Hear that ranks died; the trials that have none left."""
        gone = ranks & self.alive
        self.bereaved |= bool(gone)
        self.may_join &= not gone
        self.alive -= gone
        self.free -= gone
        for run in self.running.values():
            run.ranks -= gone
        return [run for run in self.running.values() if not run.ranks]

    def begin(self, trial: int, ranks: Sequence[int], now: float) -> None:
        """A trial that waited gets free ranks."""
        self.waiting.remove(trial)
        self.free -= set(ranks)
        self.running[trial] = Running(trial, set(ranks), now, heard=now)

    def starts(self, now: float, *, widened: bool) -> list[Place]:
        """The trials that free ranks shall begin now; new ones only if they end in time.

        Args:
            now: the time.
            widened: whether these trials are the last ones, so that spare ranks go to them.
        """
        if not self.free or not self.waiting:
            return []
        wants = self._in_time(now, widened=widened and self.may_join)
        free_at = dict.fromkeys(self.alive, now + _SOON) | dict.fromkeys(self.free, now)
        for run in self.running.values():
            free_at |= dict.fromkeys(run.ranks, now + max(_SOON, self.left(run, now)))
        pace = dict.fromkeys(self.alive, 1.0)
        idle, found = set(self.free), []
        for place in assign(in_order(wants), free_at, pace, now, self.facts.nodes):
            if place.start <= now and self._ends(place.trial, place.finish):
                found.append(place)
            idle -= set(place.ranks)
            if not idle:  # whatever comes later starts later
                break
        return found

    def _in_time(self, now: float, *, widened: bool) -> list[Want]:
        """The trials that wait and would end before the deadline if they began now.

        As far as is known; with spare ranks if they are `widened`. Of those that would not, the
        one that ends last is left out first: its ranks may bring another one home.
        """
        wants = [self.want(number) for number in self.waiting]
        while True:
            spare = len(self.free) - sum(want.ranks for want in wants)
            found = wants
            if widened and wants and spare > 0:
                found = widen(wants, spare, self.facts.restart_seconds)
            ends = {want.trial: now + duration(want.seconds, want.ranks) for want in found}
            late = [trial for trial, end in ends.items() if not self._ends(trial, end)]
            if not late:
                return found
            last = max(late, key=lambda trial: (ends[trial], trial))
            wants = [want for want in wants if want.trial != last]

    def _ends(self, trial: int, finish: float) -> bool:
        """Whether a trial may run to `finish`: what has been begun goes on, if only a little."""
        return finish <= self.facts.deadline or bool(self.history.trials[trial].parts)

    def joinable(self, now: float) -> Running | None:
        """The running trial that idle ranks shall join; None if that ends nothing sooner."""
        runs = self.running.values()
        if not self.may_join or not self.free or any(run.asked_to_pause for run in runs):
            return None
        left = {run.trial: (self.left(run, now), len(run.ranks)) for run in runs}
        if any(seconds == math.inf for seconds, _ in left.values()):
            return None
        trial = join(left, len(self.free), self.facts.restart_seconds)
        return None if trial is None else self.running[trial]

    def want(self, number: int) -> Want:
        """How long the rest of a trial needs, and on how many ranks."""
        trial = self.history.trials[number]
        seconds = self.seconds(trial)
        size, ranks = self._size(trial)
        ranks = 1 if self.bereaved else ranks
        # where nothing is known yet, sizes alone put the longest first
        return Want(number, size * (1 - trial.done) * 1e-9 if seconds is None else seconds, ranks)

    def seconds(self, trial: Trial) -> float | None:
        """What one rank would need for the rest of a trial; None if nothing is known."""
        whole = self.durations.foretell(trial.params, self._size(trial)[0])
        return None if whole is None else whole * (1 - trial.done)

    def left(self, run: Running, now: float) -> float:
        """Seconds until a running trial ends: by its progress, else by those that have ended."""
        if run.begun is not None and run.done > run.begun:
            rate = (run.heard - run.started) / (run.done - run.begun)
            return max(0.0, (1 - run.done) * rate - (now - run.heard))
        seconds = self.seconds(self.history.trials[run.trial])
        if seconds is None:
            return math.inf
        return max(0.0, duration(seconds, max(1, len(run.ranks))) - (now - run.started))

    def learn(self, trial: Trial) -> None:
        """Learn from the seconds of a trial that ran from its beginning to its end in one go."""
        if trial.state != COMPLETE or len(trial.parts) != 1 or not trial.parts[0]["stop"]:
            return
        part = trial.parts[0]
        seconds = (part["stop"] - part["start"]) / duration(1.0, len(part["ranks"]))
        self.durations.learn(trial.params, self._size(trial)[0], seconds)

    def _size(self, trial: Trial) -> tuple[float, int]:
        """Size and ranks, asked for once; a population changes the settings of its members."""
        known = self._sizes.get(trial.number)
        if known is None or known[0] != trial.generation:
            known = (trial.generation, *self.facts.size(trial.params))
            self._sizes[trial.number] = known
        return known[1], known[2]
