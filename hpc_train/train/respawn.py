"""Respawn: where ranks die others take their place, while the training goes on.

    step    rank 0                                 1       2      its replacement
     50     alive                                  killed  alive
     50     shrink, again with two ranks                   ...
     51     starts it; waits for its MPI_Init              ...    imports, opens, builds
     ..     is it ready?  not yet                          ...    ...
     90     is it ready?  yes: flag in the tally           ...    waits
     91     admit ---- all three: state, records, plan ---------- join

The state comes from the memory of a rank that has it, over the network, not from a disk.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from hpc_train.comm import Comm
from hpc_train.comm.replacement import Replacement, flags_of
from hpc_train.errors import ConfigError, SetupError
from hpc_train.forkserver import NAME, Hold, start
from hpc_train.record import phase
from hpc_train.strategies import Regroupable
from hpc_train.train.build import Parts
from hpc_train.world import Json

_START_SECONDS = 300.0  # for a replacement to import, open and build
_KNOWN = ("hpc_train", "torch")  # importing these does nothing else, and brings most of the others
_IMPORT_SECONDS = 60.0  # for a fork server to import
_MOST_FAILURES = 3  # replacements in a row that die before they are ready

logger = logging.getLogger(__name__)


class Respawn:
    """Starts replacements, one at a time, on the rank that coordinates.

    Args:
        comm: the ranks.
        document: what a replacement is told, as JSON.
        forks: a hold on who has their imports done; None if nobody has.
    """

    def __init__(self, comm: Comm, document: Callable[[], Json], forks: Hold | None = None) -> None:
        self._comm = comm
        self._document = document
        self._newcomer: Replacement | None = None
        self._failures = 0
        self._forks = forks
        self._patience = time.monotonic() + _IMPORT_SECONDS

    def look(self) -> bool:
        """At every step: start a replacement if a rank is missing; whether one is ready."""
        if not self._comm.world.is_coordinator or self._failures >= _MOST_FAILURES:
            return False
        missing = self._comm.missing
        if not missing:
            return False
        if self._newcomer is None:
            if self._has_forks():
                self._start(missing[0])
            return False
        state, waited = self._newcomer.state(), time.monotonic() - self._newcomer.started
        if state == "gone":
            self._failed(self._newcomer.number, "died before it was ready")
        elif state == "starting" and waited > _START_SECONDS:
            self._failed(self._newcomer.number, f"was not ready after {waited:.0f} s")
        return state == "ready"

    def admit(self) -> int | None:
        """Go on with the one that is ready; collective. The number of the rank that it replaces.

        None if it died since it said so, or died with the rank that had started it.

        Raises:
            Exception: one that `Comm.is_lost` knows, if a rank died meanwhile.
        """
        newcomer, self._newcomer = self._newcomer, None
        try:
            number = int(self._comm.broadcast(newcomer.number if newcomer else -1))
            if number < 0:
                return None
            self._comm.admit(newcomer, number)
        except Exception:
            if newcomer is not None:
                newcomer.dismiss()
            raise
        self._failures = 0
        return number

    def close(self) -> None:
        """Let a replacement that is not ready end, and no more be started."""
        self._dismiss()
        if self._forks is not None:
            self._forks.close()

    def _dismiss(self) -> None:
        if self._newcomer is not None:
            self._newcomer.dismiss()
            self._newcomer = None

    def _has_forks(self) -> bool:
        """Whether a replacement finds its imports done, or cannot hope to."""
        is_ready = self._forks is None or self._forks.is_ready
        return is_ready or time.monotonic() > self._patience

    def _start(self, number: int) -> None:
        try:
            # not a phase of recovery, in which all ranks would take part
            with phase("schedule", operation="respawn"):
                self._newcomer = self._comm.replace(number, self._document())
        except RuntimeError as error:  # of which MPI's exceptions are
            if self._comm.is_lost(error):
                raise
            self._failed(number, f"cannot be started: {error}")
            return
        if self._newcomer is None:
            self._failures = _MOST_FAILURES
            logger.warning("rank %d is not replaced: its command line cannot be repeated", number)
            return
        logger.info("a replacement of rank %d is being started", number)

    def _failed(self, number: int, why: str) -> None:
        self._dismiss()
        self._failures += 1
        more = "" if self._failures < _MOST_FAILURES else "; no more are started"
        logger.warning("the replacement of rank %d %s%s", number, why, more)


def hold_forks(comm: Comm) -> Hold | None:
    """Hold on to this node's fork server; collective but for a replacement, None without one.

    It imports while the ranks begin to train, and then needs nothing but memory. Where it dies,
    or where all ranks of a node do, replacements import for themselves.
    """
    if comm.invitation is None:
        name = comm.broadcast(uuid.uuid4().hex)
        os.environ[NAME] = name
        hold = None
        # a quota of this rank alone would be that of all that is forked
        if comm.world.local_rank == 0 and comm.world.size > 1 and comm.gate.cpus is None:
            modules = [one for one in sys.modules if one.partition(".")[0] in _KNOWN]
            with suppress(Exception):  # whatever it is, the others wait
                hold = start(name, flags_of(sys.orig_argv[1:]), modules)
        comm.meet()
        if hold is not None:
            return hold
    with suppress(OSError):
        return Hold(os.environ.get(NAME, ""))
    return None


def check_respawn(parts: Parts) -> None:
    """Check that `recovery.respawn` can be had, if it is asked for.

    Raises:
        ConfigError, SetupError: on every rank, if it cannot.
    """
    section, comm = parts.config.recovery, parts.comm
    if not section.respawn:
        return
    error: ConfigError | SetupError | None = None
    if not section.shrink:
        error = ConfigError(
            "ranks can only be replaced where the others go on without them "
            "(recovery.respawn: true, recovery.shrink: false)",
            where="recovery.respawn",
            hint="set recovery.shrink = true",
        )
    elif not isinstance(parts.strategy, Regroupable):
        error = ConfigError(
            f'ranks cannot be replaced under strategy "{parts.config.strategy.name}"',
            where="recovery.respawn",
            hint='use strategy.name = "allreduce"',
        )
    elif not comm.is_whole:
        error = ConfigError(
            "ranks of a group (a member of an ensemble, a trial) cannot be replaced",
            where="recovery.respawn",
            hint="set recovery.respawn = false",
        )
    elif comm.world.size > 1 and not comm.fault_tolerant:
        error = SetupError(
            "recovery.respawn needs an MPI that survives the death of a rank",
            where="recovery.respawn",
            hint="use an Open MPI 5 with fault tolerance, and start with hpc-train run -n N or "
            "mpirun --with-ft ulfm",
        )
    if error is not None:
        error.agreed = True
        raise error
    if comm.world.size == 1 and comm.invitation is None and comm.world.is_coordinator:
        logger.warning("recovery.respawn: one rank alone has nobody who could replace it")
