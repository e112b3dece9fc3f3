"""Where the time of a step goes, on one rank and over all of them.

                  reduce of t-1                              reduce of t
    rank 0   ....|============| update | data | compute     |============|
    rank 1   ....|============| update | data | compute |~~~|============|
                               <------- apart --------->     <-- pure -->
                              <------ step t of rank 1 ----------------->

A reduction ends at the same moment on all ranks, so steps are cut there. How long a rank was on
its own (`apart`) needs no clock but its own; the slowest of them says how long the others waited
(~), and the rest of the reduction is communication. So nodes need no common clock.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

REDUCTION = "communication"
PARTS = ("compute", "communication", "data", "waiting", "other")


@dataclass(frozen=True)
class Phase:
    """A phase of `record`, with its begin and end in seconds of this rank's clock."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Step:
    """One rank's step, in seconds.

    Attributes:
        apart: from the end of the reduction before to the beginning of this one.
        reduction: this reduction, waiting for others included.
        data, compute, update: what `apart` was spent on; the rest of it is the loop itself.
    """

    apart: float
    reduction: float
    data: float
    compute: float
    update: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.apart + self.reduction


class PhaseClock:
    """A hook of `record` that notes every phase of the thread that made it."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._thread = threading.get_ident()

    def __call__(self, name: str, detail: dict[str, Any]) -> Callable[[], None]:
        if threading.get_ident() != self._thread:
            return lambda: None
        begin = time.perf_counter()
        return lambda: self.phases.append(Phase(name, begin, time.perf_counter()))


def cut(phases: Sequence[Phase]) -> list[Step]:
    """The steps of a rank; what comes before the end of the first reduction is none.

    Args:
        phases: in the order in which they ended, not nested.
    """
    steps = []
    before: float | None = None
    spent: dict[str, float] = defaultdict(float)
    for phase in phases:
        if phase.name != REDUCTION:
            spent[phase.name] += phase.end - phase.begin
            continue
        if before is not None:
            steps.append(
                Step(
                    apart=phase.begin - before,
                    reduction=phase.end - phase.begin,
                    data=spent["data"],
                    compute=spent["compute"],
                    update=spent["update"],
                )
            )
        before = phase.end
        spent.clear()
    return steps


def split(ranks: Sequence[Sequence[Step]]) -> dict[str, float]:
    """The mean step, over steps and ranks, split into `PARTS`, in seconds.

    Args:
        ranks: the steps of each rank, the same number of each.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    count = 0
    for steps in zip(*ranks, strict=True):
        slowest = max(step.apart for step in steps)
        for step in steps:
            waiting = min(step.reduction, slowest - step.apart)
            parts["compute"] += step.compute + step.update
            parts["data"] += step.data
            parts["waiting"] += waiting
            parts["communication"] += step.reduction - waiting
            parts["other"] += step.apart - step.data - step.compute - step.update
            count += 1
    return {name: seconds / count for name, seconds in parts.items()} if count else parts


def typical(ranks: Sequence[Sequence[float]]) -> float:
    """Seconds of a typical step: the median over steps of the mean over ranks.

    Args:
        ranks: the seconds of each step of each rank, shape (ranks, steps).
    """
    return statistics.median(statistics.fmean(step) for step in zip(*ranks, strict=True))


def to_json(steps: Sequence[Step]) -> list[dict[str, float]]:
    """Steps as JSON."""
    return [asdict(step) for step in steps]


def from_json(rows: Sequence[dict[str, float]]) -> list[Step]:
    """Steps that `to_json` made."""
    return [Step(**row) for row in rows]
