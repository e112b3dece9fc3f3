"""The scheduler: from measured steps to plans, with hysteresis. A pure state machine.

    observe(counts, seconds)   a step that all ranks have finished, in the order of steps
    decide(batch)              the plan that shall hold from `batch` on, or None: leave it

A plan changes when it pays: the predicted gain per step, over the steps for which speeds may be
trusted to stay, must exceed what a change costs (data prefetched for the old plan, blocks read
again, memory and kernels for other sizes; measured as what the first steps after a change take
beyond their prediction, the least of the last three), and it must be larger than the errors of the
predictions, or noise would shuffle the shares of equal ranks.

A single step that took far longer than expected (a job that was suspended, storage that hung) says
nothing of who is fast; it is neither in the means nor in the errors.

Speeds follow the last ten steps or so, and what noise lets them say of a small gain stays uncertain
for ever. So longer means are kept while a plan holds (`means.py`), of each rank's part of the step,
from which what slows all of them alike cancels: over 16 steps, then over the next 32 and so on
up to 512. They are believed within errors that shrink with the root of the steps' number.

A rank without samples tells nothing about its speed, so it is probed: two batches with one sample
for it, so seldom that probing takes at most a hundredth of the time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpc_train.plan import Plan
from hpc_train.schedule.caution import careful
from hpc_train.schedule.means import Means
from hpc_train.schedule.probe import Probes
from hpc_train.schedule.reserve import Claimed, Reserve
from hpc_train.schedule.situation import Floats, Policy, Situation
from hpc_train.schedule.speed import Speeds

_WARM_UP = 2  # steps that are not believed: allocations, caches, clocks
_HORIZON = 50  # steps for which speeds are trusted to stay as they are
_LEAST_GAIN = 0.02  # of the step: what is less, spells of noise undo before it has paid ...
_LEAST_BACK = 0.01  # ... but for the way back to the counts of the beginning
_ERRORS = 1.5  # standard errors that the gain must exceed, beyond what the slowest of p shows
_FIRST_COST, _COSTS = 0.5, 3  # of a change, in steps, until so many have cost more
_STALL = 4.0  # times the expected seconds: a single step that takes longer is not in the means
_SETTLING = 3  # steps after a change that show what it costs, not how fast ranks are


@dataclass
class Balance:
    """What the steps took, in seconds, over all observed steps.

    Attributes:
        seconds: the last finish of each step.
        mean_seconds: mean over ranks of what they were busy for.
        equal_seconds: what the last finish would have been with equal shares, as predicted.
        changes: how often the plan changed.
    """

    seconds: float = 0.0
    mean_seconds: float = 0.0
    equal_seconds: float = 0.0
    changes: int = 0


class Scheduler:
    """Decides how global batches are split.

    Args:
        policy: how counts follow from speeds.
        situation: batch size, stated shares, quantum and caps.
        num_batches: the batch at which the run ends; what a plan gains ends with it.
        reserve: what is left of each batch to be claimed; None for nothing. Speeds are then learned
            from what ranks own: of that no rank does less because it is slow today.

    Attributes:
        plan: the plan in force.
        reserve: as above.
        speeds: what is known of each rank.
        balance: what the steps took so far.
    """

    def __init__(
        self,
        policy: Policy,
        situation: Situation,
        num_batches: int,
        reserve: Reserve | None = None,
    ) -> None:
        self.reserve = reserve
        self.plan = Plan(policy.split(situation))
        self._first = self.plan.counts
        self.speeds = Speeds(situation.num_ranks)
        self.balance = Balance()
        self._policy = policy
        self._situation = situation
        self._num_batches = num_batches
        self._seen = 0
        self._fresh = False  # whether the plan has changed and its first steps are still out
        self._settling: list[float] = []  # what those took beyond their prediction, in steps
        self._judged = -1  # the version of the speeds that was last decided upon
        self._costs = deque([_FIRST_COST] * _COSTS, maxlen=_COSTS)  # of the last changes, in steps
        self._was_stall = False
        self._scale = _Scale(-1, (), np.zeros(0), 0.0)
        self._probes = Probes(situation.num_ranks)
        self._means = Means(situation.num_ranks)
        self._is_proven = False  # whether the plan comes from such means

    def observe(
        self,
        counts: Sequence[int],
        busy_seconds: Sequence[float],
        claimed: Claimed | None = None,
    ) -> None:
        """Take in one step.

        Args:
            counts: samples that the plan gave each rank, shape (num_ranks,).
            busy_seconds: what each rank was busy for, waiting excluded, shape (num_ranks,).
            claimed: what of it each one claimed, where there is a reserve.
        """
        self._seen += 1
        if self._seen <= _WARM_UP:
            return
        is_planned = tuple(counts) == self.plan.counts
        done, own = counts, busy_seconds
        if self.reserve is not None and claimed is not None:
            counts = self.reserve.cut(counts).owned
            done = [sum(both) for both in zip(counts, claimed.samples, strict=True)]
            own = [t - more for t, more in zip(busy_seconds, claimed.seconds, strict=True)]
        if self._fresh and is_planned:
            # the first steps of a plan read what nobody has read ahead: they show the cost
            is_first = not self._settling
            self._learn_cost(counts, own)
            if not self._probes.running:
                if not is_first:
                    self._account(done, busy_seconds)
                return
        self._account(done, busy_seconds)
        if self._situation.num_ranks > 1:  # one rank has nothing to decide
            is_stall = self._is_stall(counts, own)
            self.speeds.observe(counts, own)
            if is_planned and self._policy.measures and not is_stall:
                self._means.take(counts, own)

    @property
    def _cost_steps(self) -> float:
        """What a change costs, in steps: a single one that met a stall does not decide it."""
        return min(self._costs)

    def _is_stall(self, counts: Sequence[int], seconds: Sequence[float]) -> bool:
        """Whether the step took far longer than expected, and the one before did not."""
        expected = self.speeds.seconds(counts)
        known = expected > 0
        is_long = known.any() and max(seconds) > _STALL * expected[known].max()
        self._was_stall = bool(is_long) and not self._was_stall
        return self._was_stall

    def decide(self, batch: int) -> Plan | None:
        """The plan that shall hold from `batch` on, or None to leave the present one."""
        if not self._policy.measures or self._situation.num_ranks == 1:
            return None
        is_due = self._means.are_due
        if (
            self.speeds.version == self._judged
            and not 0 < self._probes.next <= batch
            and not is_due
        ):
            return None  # nothing new: most steps end here
        self._judged = self.speeds.version
        if not (self.speeds.known | (np.array(self.plan.counts) == 0)).all():
            return None
        if self._probes.running:
            counts = self._probes.after(batch)
            return None if counts is None else self._adopt(counts, batch)
        measured = self._now()
        situation = self._careful(measured)
        current = finish(situation, self.plan.counts)
        counts = self._better(situation, current, batch)
        if counts is None and is_due:
            counts = self._by_means(measured, batch)
            if counts is not None:
                return self._adopt(counts, batch, is_proven=True)
        if counts is None:
            counts = self._probes.begin(batch, self.plan.counts, situation, self._cost_steps)
        return None if counts is None else self._adopt(counts, batch)

    def _now(self) -> Situation:
        """The situation as measured; a rank never measured is taken for the slowest."""
        pace = self.speeds.pace
        if not self.speeds.known.all():
            pace = np.where(self.speeds.known, pace, np.nanmax(pace))
        return replace(self._situation, fixed=self.speeds.fixed, pace=pace)

    def _careful(self, situation: Situation) -> Situation:
        noise = self.speeds.noise[np.array(self.plan.counts) > 0]
        return careful(situation, noise) if self._policy.heeds_noise else situation

    def _better(self, situation: Situation, current: float, batch: int) -> tuple[int, ...] | None:
        """The counts of the policy, if changing to them pays."""
        if self._fresh:
            return None
        steps = min(_HORIZON, self._num_batches - batch)
        if steps <= 0:
            return None
        least = current * max(_LEAST_GAIN, self._cost_steps / steps, self._error(situation))
        if current - _even_finish(situation, self.plan.counts, current) > least:
            counts = self._let_go(self._policy.split(situation), situation)
            if current - finish(situation, counts) > least:
                return counts
        return self._back_to_equal(situation, current, steps)

    def _by_means(self, situation: Situation, batch: int) -> tuple[int, ...] | None:
        """The counts of the policy for what the longer means say, if they pay."""
        parts, error = self._means.parts, self._means.error
        self._means = self._means.next()
        steps = min(_HORIZON, self._num_batches - batch)
        if self._fresh or steps <= 0:
            return None
        held = (
            self.plan.counts if self.reserve is None else self.reserve.cut(self.plan.counts).owned
        )
        own = np.asarray(held)
        predicted: Floats = situation.fixed + situation.pace * own
        works = (own > 0) & (predicted > 0)
        scale = np.ones(len(own))
        scale[works] = parts[works] * predicted[works].mean() / predicted[works]
        fixed, pace = situation.fixed * scale, situation.pace * scale
        situation = self._careful(replace(situation, fixed=fixed, pace=pace))
        current = finish(situation, self.plan.counts)
        errors = (_ERRORS + _excess_of_slowest(len(own))) * error
        least = current * max(_LEAST_GAIN, self._cost_steps / steps, errors)
        counts = self._let_go(self._policy.split(situation), situation)
        return counts if current - finish(situation, counts) > least else None

    def _back_to_equal(
        self, situation: Situation, current: float, steps: int
    ) -> tuple[int, ...] | None:
        """The counts of the beginning, if they are the better ones as far as can be told.

        Noise may have led away from them, and may be too large for a way back by evidence: who
        cannot tell the ranks apart treats them alike. Longer means can, and have the last word.
        """
        if self._is_proven:
            return None
        least = current * max(_LEAST_BACK, self._cost_steps / steps)
        better = current - finish(situation, self._first) > least
        return self._first if better and self._first != self.plan.counts else None

    def _let_go(self, counts: tuple[int, ...], situation: Situation) -> tuple[int, ...]:
        """Park a rank on evidence only: `counts`, with zeros put off where it is missing.

        A line through few and noisy steps may show a fixed cost that is not there, and a rank
        without samples cannot disprove it. Unless its samples alone take too long, a rank is tried
        with a quarter of what it has.
        """
        held = self.plan.counts
        if 0 not in counts:
            return counts
        kept = list(counts)
        doubtful = self.speeds.mean_pace < finish(situation, counts)
        for rank in np.flatnonzero(doubtful).tolist():
            if kept[rank] == 0 and held[rank] > situation.unit:
                giver, unit = int(np.argmax(kept)), situation.unit
                kept[rank] = min(max(held[rank] // 4 // unit, 1), (kept[giver] - 1) // unit) * unit
                kept[giver] -= kept[rank]
        return tuple(kept)

    def _error(self, situation: Situation) -> float:
        """A gain that noise could feign, relative to the step."""
        counts = np.asarray(self.plan.counts)
        seconds = np.where(counts > 0, situation.fixed + situation.pace * counts, 0.0)
        errors = _ERRORS + _excess_of_slowest(len(counts))
        return errors * float(self.speeds.error[int(np.argmax(seconds))])

    def _adopt(self, counts: tuple[int, ...], batch: int, *, is_proven: bool = False) -> Plan:
        self.plan = Plan(counts, since=batch)
        self.balance.changes += 1
        self._fresh = True
        self._settling.clear()
        self._means = Means(len(counts))
        self._is_proven = is_proven
        return self.plan

    def _learn_cost(self, counts: Sequence[int], busy_seconds: Sequence[float]) -> None:
        predicted = float(np.nanmax(self.speeds.seconds(counts)))
        if predicted > 0:
            self._settling.append(max(busy_seconds) / predicted - 1.0)
        if len(self._settling) < _SETTLING and predicted > 0 and not self._probes.running:
            return
        steps = min(sum(self._settling), float(_HORIZON))
        self._costs.append(max(0.0, steps))
        self._settling.clear()
        self._fresh = False
        self._judged = -1

    def _account(self, counts: Sequence[int], busy_seconds: Sequence[float]) -> None:
        """Add up what the step took, and what it would have taken with equal shares."""
        last = max(busy_seconds)
        self.balance.seconds += last
        self.balance.mean_seconds += sum(busy_seconds) / len(busy_seconds)
        if not self.speeds.known.all():
            self.balance.equal_seconds += last
            return
        if (self._scale.version, self._scale.counts) != (self.speeds.version, tuple(counts)):
            self._scale = self._equal_scale(tuple(counts))
        scaled = float((self._scale.factor * busy_seconds).max())
        self.balance.equal_seconds += max(scaled, self._scale.least)

    def _equal_scale(self, counts: tuple[int, ...]) -> _Scale:
        """From seconds with `counts` to seconds with equal shares."""
        speeds, amount = self.speeds, np.array(counts)
        equal = speeds.fixed + speeds.pace * amount.mean()
        works = amount > 0
        factor = np.where(works, equal / (speeds.fixed + speeds.pace * np.maximum(amount, 1)), 0.0)
        least = float(equal[~works].max(initial=0.0))
        return _Scale(speeds.version, counts, factor, least)


@dataclass(frozen=True)
class _Scale:
    """What turns each rank's seconds into those of an equal share: its own seconds, scaled.

    `least` is what the ranks that did not compute would need, as fitted.
    """

    version: int
    counts: tuple[int, ...]
    factor: Floats
    least: float


def _excess_of_slowest(num_ranks: int) -> float:
    """By how many standard errors the slowest of equal ranks looks slower than it is."""
    return math.sqrt(2 * math.log(num_ranks))


def finish(situation: Situation, counts: Sequence[int]) -> float:
    """When the last rank that has samples finishes, in seconds."""
    amount = np.asarray(counts)
    seconds: Floats = situation.fixed + situation.pace * amount
    return float(seconds[amount > 0].max())


def _even_finish(situation: Situation, counts: Sequence[int], current: float) -> float:
    """When all would finish if samples could be cut at will: T with sum (T - a_r) / b_r = B.

    All are those that have samples, or would be done with one before `current`: no split is better.
    """
    fixed, pace = situation.fixed, situation.pace
    takes_part = (np.asarray(counts) > 0) | (fixed + pace < current)
    fixed, pace = fixed[takes_part], pace[takes_part]
    return float((situation.batch_size + (fixed / pace).sum()) / (1.0 / pace).sum())
