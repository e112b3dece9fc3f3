"""The vigil: flight recorder and watchdog, hung up on all ranks for as long as a run trains."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hpc_train.comm import Comm
from hpc_train.errors import HpcTrainError
from hpc_train.record import hearing, listening
from hpc_train.recovery.flight import FOLDER, Tape, path_of
from hpc_train.recovery.patience import Patience
from hpc_train.recovery.recorder import ELSEWHERE, Recorder, place_for
from hpc_train.recovery.watchdog import Watchdog
from hpc_train.world import on_coordinator

logger = logging.getLogger(__name__)


@contextmanager
def vigil(comm: Comm, run: Path, *, on_hang: str, hang_seconds: float) -> Iterator[None]:
    """Record and watch what this rank does, while the block lasts; collective at its beginning.

    If a record cannot be written, on any rank, there is none, with a warning.

    Args:
        comm: the ranks.
        run: the run directory.
        on_hang: see `Watchdog`.
        hang_seconds: the least time after which a phase counts as hung, > 0.
    """
    rank = comm.world.rank
    on_coordinator(comm, lambda: shutil.rmtree(run / FOLDER, ignore_errors=True))
    tape, problem = _begin(run, rank)
    told = comm.gather([str(tape.path.absolute()) if tape else "", problem])
    problems = [text for _, text in told if text]
    if tape is None or problems:
        if comm.world.is_coordinator:
            logger.warning("no flight recorder and no watchdog: %s", problems[0])
        yield
        return
    with ExitStack() as stack:
        tapes = {rank: tape}
        for other in comm.world.local_ranks:
            if other != rank:
                tapes[other] = Tape.open(Path(told[other][0]))
        recorder = stack.enter_context(Recorder(tape, Patience(hang_seconds)))
        alone = comm.world.num_nodes > 1 or comm.world.local_size == 1
        stack.enter_context(Watchdog(rank, tapes, on_hang, alone=alone))
        stack.enter_context(listening(recorder))
        stack.enter_context(hearing(recorder.hear))
        yield


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
