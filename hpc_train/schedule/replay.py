"""Replaying: what a policy makes of ranks whose seconds are given by a function.

    batch k       all compute with the plan in force; then, in its tally,
                    the plan decided during k - 1 is announced, and holds from k + 1 on
                    the seconds of batch k - 1 become known, and a plan is decided
    batch k + 1   ...

The delays are those of training, so that what is measured here is what training would see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hpc_train.schedule.reserve import Claimed, simulate
from hpc_train.schedule.scheduler import Scheduler

Seconds = Callable[[int, NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Step:
    """One replayed step: the samples of each rank and what it was busy for, in seconds."""

    counts: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def finish(self) -> float:
        """When the last rank with samples finished, in seconds."""
        return max(t for n, t in zip(self.counts, self.seconds, strict=True) if n)


def replay(scheduler: Scheduler, seconds: Seconds, num_steps: int) -> list[Step]:
    """Let `scheduler` run `num_steps` steps.

    Args:
        scheduler: fresh; it is used up.
        seconds: (step, counts of shape (num_ranks,)) -> seconds of each rank.
        num_steps: how many steps to run.
    """
    steps: list[Step] = []
    told: list[tuple[Sequence[int], Sequence[float], Claimed | None]] = []
    plan = announced = scheduler.plan
    for number in range(num_steps):
        counts, claimed = np.array(plan.counts), None
        if scheduler.reserve is not None:
            cut = scheduler.reserve.cut(plan.counts)
            counts, claimed = simulate(cut, partial(seconds, number))
        times: Sequence[float] = seconds(number, counts).tolist()
        steps.append(Step(tuple(counts.tolist()), tuple(times)))
        told.append((plan.counts, times, claimed))
        plan = announced
        if number > 0:
            scheduler.observe(*told[-2])
        announced = scheduler.decide(number + 2) or announced
    return steps
