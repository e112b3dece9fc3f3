"""Replacements for ranks that died: started beside the training, taken in between two steps.

    coordinator   start -- trains on -- ready? -- call ---> accept   merge   agree   all are there
    the others             trains on                        accept   merge   agree
    replacement     imports, opens, builds -- ready ------> connect  merge

1 start    by the coordinator alone: whoever dies meanwhile has nothing to do with it. It takes as
           long as a Python interpreter and MPI_Init; the replacement does all else while the
           others train. Imports it finds done where the node has a fork server (`forkserver`).
2 ready    a letter, which the coordinator looks for at every step.
3 call     the name of a port, after all have heard in a step that they are to meet there.
4 agree    once all survivors hold the new communicator it is theirs; else none of them takes it.

A replacement whose coordinator dies, or that is not called, ends without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from hpc_train.comm import failures, letters
from hpc_train.leaving import FILE, GUARD, take_leave
from hpc_train.world import Json

if TYPE_CHECKING:
    from mpi4py import MPI

logger = logging.getLogger(__name__)

MARK = "HPC_TRAIN_REPLACES"  # the variable that tells a process the number of the rank it replaces
_HELLO, _READY, _CALL = 11, 12, 13  # tags
_LOOK_SECONDS = 0.005
_WATCH_SECONDS, _GONE = 0.2, 3  # how often one that joins is looked for, and not found
_WAIT_SECONDS = 600.0  # for a call, after which nobody will make one
# what a replacement finds as its starter did; the launcher hands on its own environment
_HANDED_ON = ("HPC_TRAIN_", "PYTHON", "OMP_NUM_", "HDF5_", "NO_COLOR", "SLURM_JOB_")
# MPI first of all: until then its starter waits; where that has died, MPI_Init never returns
_BOOT = """\
import os, runpy, signal, sys
try:
    from hpc_train.forkserver import ask
    ask()
except ImportError:
    pass
signal.alarm(30)
from mpi4py import MPI
signal.alarm(0)
kind, sys.argv = sys.argv[1], sys.argv[2:]
if kind == "-m":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def program(argv: Sequence[str], environ: Mapping[str, str], number: int) -> list[str]:
    """The command line of a process that does what this one was started to do, MPI first.

    Args:
        argv: the interpreter's own arguments, as `sys.orig_argv` has them without the first.
        environ: what this process found.
        number: the rank to be replaced.
    """
    flags = flags_of(argv)
    rest = list(argv[len(flags) :])
    if rest[:2] == ["-c", _BOOT]:  # of one that is a replacement itself
        kind, *rest = rest[2:]
    elif rest[:1] == ["-m"]:
        kind, *rest = rest
    elif rest[:1] == ["-c"] or not rest:
        return []
    else:
        kind = "script"
    kept = [f"{k}={v}" for k, v in sorted(environ.items()) if k.startswith(_HANDED_ON)]
    kept = [one for one in kept if not one.startswith((f"{MARK}=", f"{FILE}="))]
    ours = [sys.executable, *flags, "-c", _BOOT, kind, *rest]
    return ["env", f"{MARK}={number}", *kept, *(GUARD if FILE in environ else ()), *ours]


def flags_of(argv: Sequence[str]) -> list[str]:
    """The interpreter's own options, of its own arguments as `program` takes them."""
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-m", "-c"):
        at += 2 if argv[at] in ("-X", "-W") else 1
    return list(argv[:at])


def order(members: Sequence[int], number: int) -> list[int]:
    """The numbers of all ranks once `number` is among them: who coordinates remains the first."""
    return [members[0], *sorted([*members[1:], number])]


class Replacement:
    """A process that is to take the place of a rank, as its starter sees it.

    Args:
        mpi: the module mpi4py.MPI.
        number: the rank that it replaces, as numbered at the beginning.
        argv: its command line (`program`).
        host: where it shall run; None to leave it to the launcher.
        document: what it is told, as JSON.

    Attributes:
        number: as above.
        started: when, on the monotonic clock.

    Raises:
        mpi4py.MPI.Exception: if it cannot be started.
    """

    def __init__(
        self, mpi: Any, number: int, argv: Sequence[str], host: str | None, document: Json
    ) -> None:
        self._mpi = mpi
        self.number = number
        info = mpi.Info.Create()
        info.Set("wdir", os.getcwd())
        # the launcher counts the slots of the dead as taken, and would bind to a single core
        info.Set("map_by", "slot:OVERSUBSCRIBE")
        info.Set("bind_to", "none")
        if host is not None:
            info.Set("host", host)
        found: Any = mpi.COMM_SELF.Spawn(argv[0], list(argv[1:]), maxprocs=1, info=info)
        self._bridge = found
        info.Free()
        self.started = time.monotonic()
        self._ready = False
        self._post: list[Any] = []
        self._send(_HELLO, document)

    def state(self) -> str:
        """ "starting", "ready", or "gone" if it died."""
        try:
            if self._bridge.Iprobe(0, _READY):
                letters.take(self._mpi, self._bridge, 0, _READY)
                self._ready = True  # and look again: it may have died since
                self._bridge.Iprobe(0, _READY)
            return "ready" if self._ready else "starting"
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise
            return "gone"

    def call(self, told: Json) -> None:
        """Let it come: what `Invitation.wait` gives it, not None."""
        self._send(_CALL, told)

    def dismiss(self) -> None:
        """Let it end: it is not needed."""
        self._send(_CALL, None)

    def _send(self, tag: int, value: Json) -> None:
        """Send without waiting; to one that is gone nothing is sent."""
        try:
            self._post.append(letters.post(self._bridge, 0, tag, value))
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise


class Invitation:
    """What a replacement is told by the rank that started it, and waits for.

    Args:
        mpi: the module mpi4py.MPI.
        bridge: to its starter.

    Attributes:
        number: the rank that it replaces, as numbered at the beginning.
        num_members: how many ranks there were then.
        deaths: how many have died by now.
        document: what else it was told, as JSON.
    """

    def __init__(self, mpi: Any, bridge: MPI.Intercomm) -> None:
        self._mpi = mpi
        self._bridge = bridge
        self.number = int(os.environ[MARK])
        self.num_members, self.deaths, self.document = self._heard(_HELLO)

    def wait(self) -> Json:
        """Say that this one is ready, and wait for the call; what that says.

        Where nobody needs it any more, the process ends.
        """
        request, _held = letters.post(self._bridge, 0, _READY, self.number)
        told = self._heard(_CALL)
        if told is None:
            _end()
        request.Wait()
        return told

    def _heard(self, tag: int) -> Json:
        """The letter with that tag; the process ends if its sender dies, or takes too long."""
        until = time.monotonic() + _WAIT_SECONDS
        try:
            while not self._bridge.Iprobe(0, tag):
                if time.monotonic() > until:
                    _end()
                time.sleep(_LOOK_SECONDS)
            return letters.take(self._mpi, self._bridge, 0, tag)
        except self._mpi.Exception as error:
            if not failures.is_failure(self._mpi, error):
                raise
            _end()


def _end() -> NoReturn:
    """End this process, which nobody needs; the others may have left already: without Finalize."""
    take_leave()
    os._exit(0)


def invitation(mpi: Any) -> Invitation | None:
    """What this process was told if it was started as a replacement; None if it was not."""
    if MARK not in os.environ:
        return None
    parent = mpi.Comm.Get_parent()
    return None if parent == mpi.COMM_NULL else Invitation(mpi, parent)


def admit(
    mpi: Any,
    base: MPI.Intracomm,
    newcomer: Replacement | None,
    told: Sequence[Json],
    place: int,
    wake: Callable[[BaseException], None],
) -> MPI.Intracomm:
    """The survivors' side of the meeting: a communicator of all, the same on all of them.

    Args:
        mpi: the module mpi4py.MPI.
        base: the survivors.
        newcomer: the replacement, on their rank 0 alone.
        told: what it gets from `Invitation.wait`, beside the port.
        place: the rank that this one will have.
        wake: lets all survivors fail in what they wait for; raises an error that is no death.

    Raises:
        mpi4py.MPI.Exception: if a rank died, on all of them; none has the communicator then.
    """
    made: list[Any] = []
    port = ""
    try:
        if newcomer is not None:
            port = mpi.Open_port()
            newcomer.call([port, *told])
        made.append(_accept(mpi, base, port, newcomer))
        made.append(made[0].Split(0, place))
    except mpi.Exception as error:
        wake(error)
    # everybody hears the same, whoever dies meanwhile
    if not base.Agree(int(len(made) == 2)):
        failures.revoke(made)  # nor must the newcomer wait
        raise mpi.Exception(mpi.ERR_REVOKED)
    whole: MPI.Intracomm = made[1]
    return whole


def _accept(
    mpi: Any, base: MPI.Intracomm, port: str, newcomer: Replacement | None
) -> MPI.Intracomm:
    with _watching(newcomer) if newcomer is not None else contextlib.nullcontext():
        between: Any = base.Accept(port, mpi.INFO_NULL, 0)
        whole: MPI.Intracomm = between.Merge(False)
    if newcomer is not None:
        mpi.Close_port(port)
    return whole


@contextlib.contextmanager
def _watching(newcomer: Replacement) -> Iterator[None]:
    """Let nobody wait for ever for one that dies as it is awaited.

    MPI_Comm_accept would, on all survivors: of a death on the other side it does not hear. A death
    on this side ends it, so the rank that called gives itself up and the others go on.
    """
    ended = threading.Event()

    def watch() -> None:
        """End this process if the other one is found gone, several times in a row."""
        gone = 0
        while not ended.wait(_WATCH_SECONDS) and gone < _GONE:
            gone += newcomer.state() == "gone"
        if not ended.is_set():
            logger.error(
                "the replacement of rank %d died as it joined; the rank that waits for it ends, "
                "so that the others can go on",
                newcomer.number,
            )
            os.kill(os.getpid(), signal.SIGKILL)

    thread = threading.Thread(target=watch, name="accept", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def connect(mpi: Any, port: str) -> MPI.Intracomm:
    """The replacement's side of the meeting."""
    between: Any = mpi.COMM_SELF.Connect(port, mpi.INFO_NULL, 0)
    whole: MPI.Intracomm = between.Merge(True)
    return whole
