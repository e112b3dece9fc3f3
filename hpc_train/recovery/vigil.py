"""The vigil: flight recorder and watchdog, hung up on all ranks for as long as a run trains."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from hpc_train.comm import Comm
from hpc_train.errors import HpcTrainError
from hpc_train.record import hearing, listening
from hpc_train.recovery.flight import FOLDER, Tape, path_of
from hpc_train.recovery.patience import Patience
from hpc_train.recovery.recorder import ELSEWHERE, Recorder, place_for
from hpc_train.recovery.watchdog import Watchdog
from hpc_train.world import on_coordinator

logger = logging.getLogger(__name__)


class Vigil:
    """Flight recorder and watchdog of this rank, while a run trains; closes as a context.

    If a record cannot be written, on any rank, there is none, with a warning.

    Args:
        comm: the ranks.
        run: the run directory.
        on_hang: see `Watchdog`.
        hang_seconds: the least time after which a phase counts as hung, > 0.
    """

    def __init__(self, comm: Comm, run: Path, *, on_hang: str, hang_seconds: float) -> None:
        self._comm = comm
        self._run = run
        self._on_hang = on_hang
        self._patience = Patience(hang_seconds)
        self._stack = ExitStack()
        self._recorder: Recorder | None = None
        self._watchdog: Watchdog | None = None
        self._off = False

    def __enter__(self) -> Vigil:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def begin(self) -> None:
        """Record and watch from now on; collective."""
        on_coordinator(self._comm, lambda: shutil.rmtree(self._run / FOLDER, ignore_errors=True))
        self.renew()

    def renew(self) -> None:
        """Watch the ranks that there are now, some of which may be new; collective."""
        comm = self._comm
        if self._recorder is None and not self._off:
            tape, problem = _begin(self._run, comm.number)
        else:
            tape, problem = (self._recorder.tape if self._recorder else None), ""
        path = str(tape.path.absolute()) if tape else ""
        count = self._recorder.operations if self._recorder else 0
        told = comm.gather([path, problem, count])
        problems = [text for _, text, _ in told if text]
        if tape is None or problems or not all(path for path, _, _ in told):
            if problems and comm.world.is_coordinator:
                logger.warning("no flight recorder and no watchdog: %s", problems[0])
            self._off = True
            if tape is not None and self._watchdog is not None:
                # those that were there before may be gone, or have other numbers of operations
                self._watchdog.watch({comm.number: tape}, alone=True)
            return
        tapes = {comm.number: tape}
        for rank in comm.world.local_ranks:
            with contextlib.suppress(OSError):
                tapes.setdefault(comm.members[rank], Tape.open(Path(told[rank][0])))
        alone = comm.world.num_nodes > 1 or comm.world.local_size == 1
        if self._recorder is None or self._watchdog is None:
            self._arm(tape, tapes, alone=alone)
        else:
            self._watchdog.watch(tapes, alone=alone)
        if self._recorder is not None:
            # ranks that came later have begun fewer operations: from here on all count alike
            self._recorder.count_from(max(count for _, _, count in told))

    def _arm(self, tape: Tape, tapes: dict[int, Tape], *, alone: bool) -> None:
        stack = self._stack
        self._recorder = stack.enter_context(Recorder(tape, self._patience))
        watchdog = Watchdog(self._comm.number, tapes, self._on_hang, alone=alone)
        self._watchdog = stack.enter_context(watchdog)
        stack.enter_context(listening(self._recorder))
        stack.enter_context(hearing(self._recorder.hear))


def _begin(run: Path, rank: int) -> tuple[Tape | None, str]:
    """A new record of this rank, and what went wrong."""
    place = place_for(run, rank)
    try:
        tape = Tape.create(place, rank)
        if place.parent != run / FOLDER:
            pointer = path_of(run / FOLDER, rank).with_suffix(ELSEWHERE)
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.write_text(f"{socket.gethostname()}:{place.absolute()}\n", encoding="utf-8")
        os.stat(place)
    except (OSError, HpcTrainError) as error:
        return None, f"{place}: {getattr(error, 'strerror', None) or error}"
    return tape, ""
