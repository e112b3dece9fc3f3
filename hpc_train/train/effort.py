"""What a step costs a rank, as the scheduler shall see it: waiting excluded, a quota included.

All that a rank does between two meetings counts, also what depends on no sample (records, plans):
it arrives the later for it.

Under a CPU quota of q the wall clock tells little of short steps: they run at full speed, until one
stands still for most of the quota's period. But in the long run a step takes its CPU seconds
divided by q, and that is known at once, without noise.

    period   |####--------|####--------|####--------|####--------|
    short     1 1 1     1  1 1               wall-clock seconds   1  1  1  10  1  1 ...
                                             CPU seconds / q      3  3  3  3   3  3 ...
    long      1........................ 1    who waits for others for a part of each step finds
                                             its period unspent: then less than CPU seconds / q

A step of many periods is timed by the wall clock: it tells when the rank arrives. Who is late to
hear that a step has ended, since its quota was spent, begins the next one late: that counts, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpc_train.quota import Quota

_BUSY = ("data", "compute", "update", "schedule")
_ADAPT = 0.02  # how fast the means follow: they must span several periods
_LIMITED = 0.8  # of the wall-clock seconds, in the mean, from which the quota is what limits
_MANY = 8  # periods of a step, from which the wall clock is as steady as what is computed


class Effort:
    """Seconds that a rank is busy for.

    Args:
        quota: what limits this rank alone; None without one.
    """

    def __init__(self, quota: Quota | None) -> None:
        self._quota = quota
        self._steps = 0.0  # with weights that forget
        self._part = 0.0  # sum over them of what the quota explains of each, at most all
        self._long = 0.0  # those that take many periods

    def busy(
        self,
        seconds: Mapping[str, float],
        elapsed_seconds: float,
        cpu_seconds: float,
        late_seconds: float = 0.0,
    ) -> float:
        """What a step takes in the long run, in seconds.

        Args:
            seconds: of each phase, by the wall clock.
            elapsed_seconds: of the whole step, what lies between phases included.
            cpu_seconds: CPU time of the whole process in this step, waiting left out.
            late_seconds: of waiting, in which what was waited for had come.
        """
        between = max(0.0, elapsed_seconds - sum(seconds.values()))
        wall = between + sum(seconds.get(name, 0.0) for name in _BUSY) + late_seconds
        if self._quota is None:
            return wall
        sustained = cpu_seconds / self._quota.cpus
        self._steps += _ADAPT * (1.0 - self._steps)
        # means of parts, not of seconds: a job that once stood still for long is as limited
        explained = min(sustained / wall, 1.0) if wall > 0 else 0.0
        self._part += _ADAPT * (explained - self._part)
        self._long += _ADAPT * ((wall >= _MANY * self._quota.period_seconds) - self._long)
        is_short = self._long < 0.5 * self._steps
        return sustained if is_short and self._part > _LIMITED * self._steps else wall
