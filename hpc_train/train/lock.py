"""The lock on a run directory: two jobs never train into one.

`lock.json` names the holder: host, process, Slurm job and restart, supervisor. The holder touches
the file every few seconds. Who finds one judges (pure, `judge`):

    same supervisor, or the same Slurm job started again   its last attempt is over: taken at once
    same machine                                           held while the process lives
    another machine                                        held while the heartbeat is young

The file's times are compared with that of a file written just now in the same place, so clocks of
different hosts do not matter. A stale lock is removed only by who holds the guard, a second file
that exists for a moment: else one that was taken over just now could be removed as the stale one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from hpc_train.errors import HpcTrainError

FILE = "lock.json"
SUPERVISOR = "HPC_TRAIN_SUPERVISOR"  # the variable in which `hpc-train run -n` names itself
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_ATTEMPTS = 20  # at a lock that others take and leave at the same time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a run directory.

    Attributes:
        token: of this hold alone.
        host: the name of its machine, for people.
        machine: machine, boot and process namespace, in which `pid` means something.
        pid: of rank 0.
        started: when that process was started, in ticks since the boot.
        slurm_job: id of the Slurm job; empty outside.
        slurm_restarts: how often Slurm had started that job again.
        supervisor: which `hpc-train run -n` started it; empty if none did.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: int
    slurm_job: str = ""
    slurm_restarts: int = 0
    supervisor: str = ""

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}"


def myself(environ: Mapping[str, str]) -> Holder:
    """This process as a holder."""
    boot = _read("/proc/sys/kernel/random/boot_id").strip()
    with contextlib.suppress(OSError):
        boot += " " + os.readlink("/proc/self/ns/pid")
    restarts = environ.get("SLURM_RESTART_COUNT", "")
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=f"{socket.gethostname()} {boot}",
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        slurm_job=environ.get("SLURM_JOB_ID", ""),
        slurm_restarts=int(restarts) if restarts.isdigit() else 0,
        supervisor=environ.get(SUPERVISOR, ""),
    )


def judge(found: Holder, me: Holder, age_seconds: float, alive: bool | None) -> str | None:
    """Why `me` may take over what `found` holds; None if it may not.

    Args:
        found: who is named in the lock.
        me: who asks.
        age_seconds: since its last heartbeat.
        alive: whether its process lives; None if it is not on this machine.
    """
    if alive:
        return None
    if alive is False:
        return "which has ended without releasing it"
    if found.supervisor and found.supervisor == me.supervisor:
        return "which its supervisor has ended"
    same_job = found.slurm_job and found.slurm_job == me.slurm_job
    if same_job and me.slurm_restarts > found.slurm_restarts:
        return "which Slurm has started again here"
    if age_seconds > STALE_SECONDS:
        return f"which has given no sign of life for {age_seconds:.0f} s"
    return None


class Lock:
    """Holds a run directory from `acquire` to `release`, and touches its lock meanwhile.

    Args:
        folder: the run directory, which is there.
        environ: tells of Slurm and of a supervisor.
        what: the name of such a folder, for people.
        key: of the configuration, that names it.

    Attributes:
        note: who held it before and why that hold was over; empty if nobody did.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        what: str = "run directory",
        key: str = "run.dir",
    ) -> None:
        self._path = folder / FILE
        self._what, self._key = what, key
        self._me = myself(environ)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.note = ""

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> Lock:
        """Take the directory.

        Raises:
            HpcTrainError: if another job holds it.
            OSError: if the file system refuses.
        """
        for _ in range(_ATTEMPTS):
            if self._create():
                return self
            found = self.holder()
            if found is None:
                if self._age() < STALE_SECONDS:  # being written, or just gone
                    threading.Event().wait(0.1)
                    continue
                reason: str | None = "whose lock cannot be read"
            else:
                reason = judge(found, self._me, self._age(), _alive(found, self._me))
            if reason is None:
                break
            if self._take_over(found):
                self.note = f"taken over from {found or 'somebody'}, {reason}"
                return self
        raise HpcTrainError(
            f"another job trains into this {self._what} ({self.holder() or 'starting just now'})",
            where=str(self._path.parent),
            hint=f"wait for its end, or choose another {self._key}; a lock whose holder has died "
            "is taken over by itself",
        )

    def inherit(self) -> None:
        """Take it from a rank of this very job that has died."""
        draft = self._path.with_name(f".{FILE}.{self._me.token}")
        draft.write_text(json.dumps(asdict(self._me)), encoding="utf-8")
        draft.replace(self._path)
        self._begin()

    def release(self) -> None:
        """Give it up, if it is still this one's."""
        self._end.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        found = self.holder()
        if found is not None and found.token == self._me.token:
            self._path.unlink(missing_ok=True)

    def holder(self) -> Holder | None:
        """Who is named in the file; None if nobody is, or not yet."""
        return read_holder(self._path.parent)

    def _create(self) -> bool:
        """Write the file if there is none; whether it was this one who did."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                json.dump(asdict(self._me), file)
        except FileExistsError:
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        self._end.clear()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            found = self.holder()
            if found is not None and found.token != self._me.token:
                logger.error("%s took over the %s of this one", found, self._what)
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def _take_over(self, stale: Holder | None) -> bool:
        """Remove the stale lock and make it this one's; false if somebody else is at it."""
        guard = self._path.with_name(f".{FILE}.guard")
        try:
            guard.touch(exist_ok=False)
        except FileExistsError:
            if self._age(guard) > STALE_SECONDS:  # left by one that was killed right then
                guard.unlink(missing_ok=True)
            threading.Event().wait(0.05)
            return False
        try:
            if self.holder() != stale:
                return False
            self._path.unlink(missing_ok=True)
            return self._create()
        finally:
            guard.unlink(missing_ok=True)

    def _age(self, path: Path | None = None) -> float:
        """Seconds since the last heartbeat (or of another file), by the file system's clock."""
        probe = self._path.with_name(f".{FILE}.{uuid.uuid4().hex}")
        try:
            probe.touch()
            now = probe.stat().st_mtime
            return now - (path or self._path).stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)


def read_holder(folder: Path) -> Holder | None:
    """Who holds the run in `folder`, dead or alive; None if nobody does."""
    return _parse(folder / FILE)


def is_alive(holder: Holder) -> bool | None:
    """Whether the holder's process lives; None if it is on another machine."""
    return _alive(holder, myself({}))


def _parse(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _alive(found: Holder, me: Holder) -> bool | None:
    if found.machine != me.machine:
        return None
    started = _started(found.pid)
    return started is not None and started == found.started


def _started(pid: int) -> int | None:
    """When a process was started, in ticks since the boot; None if it is gone or a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
