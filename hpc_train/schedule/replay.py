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

import numpy as np
from numpy.typing import NDArray

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
    plan = announced = scheduler.plan
    for number in range(num_steps):
        times: Sequence[float] = seconds(number, np.array(plan.counts)).tolist()
        steps.append(Step(plan.counts, tuple(times)))
        plan = announced
        if number > 0:
            before = steps[-2]
            scheduler.observe(before.counts, before.seconds)
        announced = scheduler.decide(number + 2) or announced
    return steps
