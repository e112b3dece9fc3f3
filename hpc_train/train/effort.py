"""What a step costs a rank, as the scheduler shall see it: waiting excluded, a quota included.

Under a CPU quota of q the wall clock tells little: steps shorter than the quota's period run at
full speed, until one stands still for most of a period. But in the long run a step takes its CPU
seconds divided by q, and that is known at once, without noise.

    period   |####--------|####--------|      wall-clock seconds   1  1  1  10  1  1 ...
    steps     1 1 1     1  1 1                 CPU seconds / q      3  3  3  3   3  3 ...
"""

from __future__ import annotations

from collections.abc import Mapping

_BUSY = ("data", "compute", "update")
_ADAPT = 0.02  # how fast the mean follows: it must span several periods
_LIMITED = 0.8  # of the wall-clock seconds, in the mean, from which the quota is what limits


class Effort:
    """Seconds that a rank is busy for.

    Args:
        cpus: CPU seconds a second that this rank may use; None without a quota of its own.
    """

    def __init__(self, cpus: float | None) -> None:
        self._cpus = cpus
        self._steps = 0.0  # with weights that forget
        self._part = 0.0  # sum over them of what the quota explains of each, at most all

    def busy(self, seconds: Mapping[str, float], cpu_seconds: float) -> float:
        """What a step takes in the long run, in seconds.

        Args:
            seconds: of each phase, by the wall clock.
            cpu_seconds: CPU time of the whole process in this step.
        """
        wall = sum(seconds.get(name, 0.0) for name in _BUSY)
        if self._cpus is None:
            return wall
        sustained = cpu_seconds / self._cpus
        self._steps += _ADAPT * (1.0 - self._steps)
        # the mean of parts, not of seconds: a job that once stood still for long is as limited
        explained = min(sustained / wall, 1.0) if wall > 0 else 0.0
        self._part += _ADAPT * (explained - self._part)
        return sustained if self._part > _LIMITED * self._steps else wall
