"""When to save by the clock: a period of time, or the one that loses least; pure.

A run that saves every t seconds pays the cost C of a save once in t, and loses t/2 on average at
each failure, of which there is one in M seconds. The sum C/t + t/2M is least at t = sqrt(2 C M):
Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974.
Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3),
2006, refines it for a C that is not small against M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_UNKNOWN_COST = 1.0  # seconds, until a save has been measured
_LEAST = 1.0  # seconds between saves, however cheap they are


def daly(cost: float, mean_time_between_failures: float) -> float:
    """The best time between two saves, in seconds (Daly 2006, equation 37).

    Args:
        cost: seconds that a save takes from the training, >= 0.
        mean_time_between_failures: in seconds, > 0.
    """
    ratio = cost / (2 * mean_time_between_failures)
    if ratio >= 1:
        return mean_time_between_failures
    young = math.sqrt(2 * cost * mean_time_between_failures)
    return young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


@dataclass(frozen=True)
class Pace:
    """How long to wait from one save to the next.

    Attributes:
        period: seconds; None to choose them from the cost of a save.
        mean_time_between_failures: seconds, > 0; used if `period` is None.
        blocked: seconds that the last save took from the training; None if there was none.
        writing: seconds until it had reached the disk, which the next one waits for.
    """

    period: float | None
    mean_time_between_failures: float
    blocked: float | None = None
    writing: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds from one save to the next."""
        if self.period is not None:
            return self.period
        cost = _UNKNOWN_COST if self.blocked is None else self.blocked
        return max(_LEAST, self.writing, daly(cost, self.mean_time_between_failures))
