"""How a rank leaves: together with the others where all know, by ending the job where not."""

from __future__ import annotations

import contextlib
import socket
import sys
import traceback
from types import TracebackType

from hpc_train.comm.communicator import Comm
from hpc_train.errors import EXIT_FAILED, EXIT_INTERRUPTED, HpcTrainError
from hpc_train.world import RankError

_FAREWELL_SECONDS = 10.0


def exit_code(error: BaseException) -> int:
    """The exit code that an error asks for."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return error.exit_code if isinstance(error, HpcTrainError) else EXIT_FAILED


def leave(comm: Comm, error: BaseException, *, debug: bool = False) -> int:
    """Print what went wrong, once, and give the exit code; ends the job if others don't know.

    An error that all ranks raise is printed by rank 0, and all leave after a barrier. One that
    only this rank knows of is printed here, with rank and host, and every rank is ended.
    """
    if comm.is_lost(error):
        error = _bereaved(comm)
    code = exit_code(error)
    agreed = isinstance(error, HpcTrainError) and error.agreed
    if comm.invitation is not None:  # the others go on without this one
        complain(error, f"the replacement of rank {comm.number}: ", debug=debug)
        comm.abort(code)
    if agreed or comm.world.size == 1:
        if comm.world.is_coordinator:
            complain(error, "", debug=debug)
        comm.depart(code)
        with contextlib.suppress(TimeoutError):
            comm.barrier(_FAREWELL_SECONDS)
        return code
    complain(error, f"rank {comm.world.rank} on {socket.gethostname()}: ", debug=debug)
    comm.abort(code)
    return code


def _bereaved(comm: Comm) -> HpcTrainError:
    """What to say where a rank died and the others could not go on; they leave together."""
    for attempts_left in reversed(range(comm.num_members + 1)):  # each needs another death
        try:
            comm.shrink()
            break
        except Exception as error:
            if not attempts_left or not comm.is_lost(error):
                raise
    who = ", ".join(map(str, comm.lost)) or "a rank"
    left = HpcTrainError(f"{who} died where the others could not go on without it")
    left.agreed = True
    return left


def complain(error: BaseException, place: str, *, debug: bool = False) -> None:
    """Print an error: a line and its hint; the traceback of bugs, and of all with `debug`."""
    text = ""
    if isinstance(error, RankError):
        text = error.trace if error.is_bug or debug else ""
    elif debug or not isinstance(error, HpcTrainError | KeyboardInterrupt):
        text = "".join(traceback.format_exception(error))
    lines = error.lines() if isinstance(error, HpcTrainError) else [repr(error)]
    if isinstance(error, KeyboardInterrupt):
        lines = ["interrupted"]
    out = text + "".join(
        (line if line.startswith("hint: ") else f"error: {place}{line}") + "\n" for line in lines
    )
    sys.stderr.write(out)
    sys.stderr.flush()


def abort_on_uncaught(comm: Comm) -> None:
    """End every rank when an exception of a user's script ends one of several.

    Without it the others would wait for ever in their next collective operation.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, HpcTrainError | KeyboardInterrupt):
            code = leave(comm, error)
            sys.stdout.flush()
            raise SystemExit(code)
        before(kind, error, trace)
        if comm.world.size > 1 or comm.invitation is not None:
            comm.abort(EXIT_FAILED)

    sys.excepthook = hook
