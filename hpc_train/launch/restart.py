"""Restarts: when ranks died and took the job along, it begins again from its newest checkpoint.

attempt ---> a result was written?         the run ended by its own will: that is the end
        ---> Ctrl-C, SIGTERM, save-and-leave?            so asked: that is the end
        ---> a signal ended a rank, or the launcher ended without a word?
                 -> once more, at most max_restarts times within a period
        ---> an exit code of an error      it would only repeat: that is the end
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import EXIT_REQUEUE
from hpc_train.launch.start import start_job
from hpc_train.launch.supervise import Ended
from hpc_train.observe import Result, read_result
from hpc_train.observe.result import RESTARTS
from hpc_train.stop import StopFlag
from hpc_train.train.lock import SUPERVISOR
from hpc_train.train.walltime import END_TIME

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How often a job may be started again: `most` times within `period_seconds`."""

    most: int
    period_seconds: float

    def allow(self, times: Sequence[float], now: float) -> bool:
        """Whether one more restart at `now` is within the limits, after those at `times`."""
        return sum(now - at < self.period_seconds for at in times) < self.most


def cause(ended: Ended, *, told: bool) -> str | None:
    """Why starting again may help; None if the same would only happen again, or nobody wants it.

    Args:
        ended: how the launcher and its ranks ended.
        told: whether the run wrote how it ended.
    """
    if told or ended.asked:
        return None
    if ended.deaths:
        return str(ended.deaths[0])
    if ended.code == 0:
        return "the launcher ended without a result of the run"
    return f"the launcher ended with {ended.code}" if ended.code >= 128 else None


def run_attempts(
    program: Callable[[int], Sequence[str]],
    ranks: int,
    folder: Path,
    limits: Limits,
    stop: StopFlag,
    *,
    wall_seconds: float | None = None,
    fault_tolerant: bool = False,
) -> tuple[int, Result | None]:
    """Run a job, and start it again where that helps.

    Args:
        program: the command line of every rank, given the number of restarts so far.
        ranks: how many, >= 1.
        folder: the run directory.
        limits: how often.
        stop: raised if the run shall save and leave while no rank is there to hear of it.
        wall_seconds: how long all attempts may take together.
        fault_tolerant: as `start_job`.

    Returns:
        What the last launcher says, and the result that its ranks wrote, if they did.

    Raises:
        SetupError: if there is no launcher that fits.
    """
    shared = _shared(os.environ, wall_seconds)
    told: list[str] = []
    times: list[float] = []
    while True:
        before = _stamp(folder)
        own = shared | ({RESTARTS: json.dumps(told)} if told else {})
        ended = start_job(program(len(told)), ranks, own, fault_tolerant=fault_tolerant)
        # a result that was there before says nothing of ranks that left without touching it
        result = read_result(folder) if _stamp(folder) != before else None
        why, now = cause(ended, told=result is not None), time.monotonic()
        if why is None:
            return ended.code, result
        if stop.is_set:
            return EXIT_REQUEUE, None
        if not limits.allow(times, now):
            if limits.most:
                logger.error("not started again: recovery.max_restarts is %d", limits.most)
            return ended.code, None
        told.append(why)
        times.append(now)
        logger.warning("restart %d, from the newest checkpoint: %s", len(told), why)


def _shared(environ: Mapping[str, str], wall_seconds: float | None) -> dict[str, str]:
    """The environment of all attempts."""
    shared = dict(environ) | {SUPERVISOR: uuid.uuid4().hex}
    if wall_seconds is not None:
        shared.setdefault(END_TIME, f"{time.time() + wall_seconds:.0f}")
    return shared


def _stamp(folder: Path) -> tuple[int, int] | None:
    """What changes whenever the result of a run is written; None if there is none."""
    try:
        state = (folder / "result.json").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns
