"""The end of the job's time: the run saves and leaves while both still fit before it.

The loop asks at every step whether it shall stop; the time between two questions is what a step
takes, evaluations and saves included. With the longest of late and what a save takes,

    leave when   end - now  <  1.5 * longest step + 2 * save + margin
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from hpc_train.config import Config
from hpc_train.config.schema import parse_seconds
from hpc_train.stop import StopFlag

END_TIME = "HPC_TRAIN_END_TIME"  # seconds since the epoch; set by `run -n`, for all its attempts
MARGIN_SECONDS = 5.0  # until the last process is gone
_RECENT = 50  # steps that tell how long the next may take

logger = logging.getLogger(__name__)


def end_of_job(environ: Mapping[str, str], wall_seconds: float | None, now: float) -> float | None:
    """When the job ends, in seconds since the epoch: the earliest that anybody says; None if none.

    Args:
        environ: SLURM_JOB_END_TIME (set by Slurm from 22.05 on), and the supervisor's.
        wall_seconds: `run.wall_time`, counted from `now` unless a supervisor has counted already.
        now: seconds since the epoch.
    """
    told = [environ.get(name, "") for name in ("SLURM_JOB_END_TIME", END_TIME)]
    ends = [float(text) for text in told if text.replace(".", "", 1).isdigit()]
    if wall_seconds is not None and END_TIME not in environ:
        ends.append(now + wall_seconds)
    return min(ends, default=None)


def wall_seconds(config: Config) -> float | None:
    """The seconds of `run.wall_time`; None if it is not set."""
    text = config.run.wall_time
    return None if text is None else parse_seconds(text)


def is_due(left: float, step_seconds: float, save_seconds: float) -> bool:
    """Whether what is left of the time no longer fits a step plus a save."""
    return left < 1.5 * step_seconds + 2 * save_seconds + MARGIN_SECONDS


class TimedStop(StopFlag):
    """A flag that is also raised when the time is nearly up.

    Args:
        stop: the flag of the signal.
        end: of the job, in seconds since the epoch; None if nothing ends it.
        clock: gives seconds since the epoch.

    Attributes:
        save_seconds: tells what a save takes.
    """

    def __init__(
        self, stop: StopFlag, end: float | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._stop = stop
        self._end = end
        self._clock = clock
        self._asked: float | None = None
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self.save_seconds: Callable[[], float] = lambda: 0.0

    @property
    def is_set(self) -> bool:
        """Whether the run shall save and leave."""
        if self._end is not None and not self._stop.is_set:
            self._look(self._end)
        return self._stop.is_set

    @is_set.setter
    def is_set(self, value: bool) -> None:
        self._stop.is_set = value

    def _look(self, end: float) -> None:
        now = self._clock()
        if self._asked is not None:
            self._steps.append(now - self._asked)
        self._asked = now
        step, save = max(self._steps, default=0.0), self.save_seconds()
        if is_due(end - now, step, save):
            logger.info(
                "the job ends in %.1f s, a step takes up to %.1f s and a save %.1f s: leaving",
                end - now,
                step,
                save,
            )
            self._stop.is_set = True
