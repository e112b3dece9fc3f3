"""Restarts: when ranks died and took the job along, it begins again from its newest checkpoint.

attempt ---> a result was written?         the run ended by its own will: that is the end
        ---> Ctrl-C, SIGTERM, save-and-leave?            so asked: that is the end
        ---> a signal ended a rank, or the launcher ended without a word,
             or those that were left lacked what only a dead rank held?
                 -> once more, at most max_restarts times within a period,
                    on the nodes of the allocation that answer
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
from hpc_train.launch.slurm.nodes import Place, find_place
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
    if ended.code == EXIT_REQUEUE:  # one that was asked to leave tells how it ended
        return "ranks died that alone held the newest state"
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
    least: int = 1,
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
        least: ranks below which it is rather queued again than started on the nodes that answer.

    Returns:
        What the last launcher says, and the result that its ranks wrote, if they did.

    Raises:
        SetupError: if there is no launcher that fits.
    """
    shared = _shared(os.environ, wall_seconds)
    told: list[str] = []
    times: list[float] = []
    place = Place(ranks)
    while True:
        ended, result = _attempt(program(len(told)), place, folder, told, shared, fault_tolerant)
        if (why := cause(ended, told=result is not None)) is None:
            return ended.code, result
        if stop.is_set:
            return EXIT_REQUEUE, None
        if not limits.allow(times, now := time.monotonic()):
            if limits.most:
                logger.error("not started again: recovery.max_restarts is %d", limits.most)
            return ended.code, None
        place = find_place(ranks, shared)
        if place.ranks < least:
            logger.error("not started again: %s", _describe(place))
            return EXIT_REQUEUE, None
        told.append(f"{why}; {_describe(place)}" if place.silent else why)
        times.append(now)
        logger.warning("restart %d, from the newest checkpoint: %s", len(told), told[-1])


def _attempt(
    argv: Sequence[str],
    place: Place,
    folder: Path,
    told: Sequence[str],
    shared: Mapping[str, str],
    tolerant: bool,
) -> tuple[Ended, Result | None]:
    """One start of the job: how it ended, and the result that it wrote, if it did."""
    before = _stamp(folder)
    environ = {**shared, **({RESTARTS: json.dumps(told)} if told else {})}
    ended = start_job(argv, place.ranks, environ, fault_tolerant=tolerant, hosts=place.hosts)
    # a result that was there before says nothing of ranks that left without touching it
    return ended, read_result(folder) if _stamp(folder) != before else None


def _describe(place: Place) -> str:
    """Which nodes are left out, and what that leaves."""
    verb = "does" if len(place.silent) == 1 else "do"
    ranks = f"{place.ranks} rank{'s' * (place.ranks != 1)}"
    return f"{', '.join(place.silent)} {verb} not answer, which leaves {ranks}"


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
