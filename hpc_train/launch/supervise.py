"""Start a launcher and stay with it until every process of the job has ended.

    terminal --SIGINT--> supervisor --SIGTERM--> mpirun ----> ranks        at once, all of them
                             |                                  ^
                             +------ SIGKILL, after a grace ----+          found by their token

1. The launcher gets a session of its own: a Ctrl-C reaches the supervisor alone, which decides.
2. Standard output is the launcher's own, untouched, so that a live line of rank 0 stays live;
   standard error passes through the filter of banners.
3. SIGUSR1 (save and leave) goes on to the launcher, which hands it to every rank.
4. If the supervisor dies, the kernel tells the launcher to end, which takes the ranks along.
5. At the end, whatever carries the job's token is killed, and its shared memory removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import SetupError
from hpc_train.launch import processes
from hpc_train.launch.banner import BannerFilter, Death

TERMINAL = "HPC_TRAIN_TERMINAL"  # the variable that tells ranks the width of the terminal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORWARDED = (signal.SIGUSR1,)
_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 0.5  # of standard error, after which nothing is held back
_FIRST_SAMPLE_SECONDS = 0.5
_RAREST_SAMPLE_SECONDS = 30.0
_AFTER_A_DEATH_SECONDS = 2.0  # between samples: others may take the place of the dead, and die
_DRAIN_SECONDS = 1.0
_DEAF_SECONDS = 2.0  # after which a launcher without ranks here must have some elsewhere
_PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a launcher and its ranks ended.

    Attributes:
        code: what the launcher says, 128 + n if signal n ended it: not to be believed alone.
            After SIGINT 130, after SIGTERM 143, after SIGHUP 129.
        deaths: the ranks that signals ended, as far as the launcher told.
        asked: whether a signal had asked the supervisor to end.
    """

    code: int
    deaths: tuple[Death, ...] = ()
    asked: bool = False


def run_ranks(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    filter_stdout: bool = False,
    grace_seconds: float = 2.0,
) -> Ended:
    """Run a launcher and its ranks until none of them is left.

    To be called from the main thread, which alone hears of signals; from another one the ranks
    run all the same, and end with that thread.

    Args:
        argv: the launcher's command line (`mpirun.command`).
        environ: the environment of launcher and ranks; the job's token is added, and the width
            of the terminal if standard output is one.
        filter_stdout: whether the launcher prints its banners on standard output (MPICH does).
        grace_seconds: between the request to end and SIGKILL.

    Returns:
        How they ended.

    Raises:
        SetupError: if the launcher cannot be started.
    """
    job = _Job(grace_seconds, uuid.uuid4().hex)
    sys.stdout.flush()
    sys.stderr.flush()
    with _signals() as wake:
        job.start(argv, environ, filter_stdout)
        try:
            job.watch(wake)
        finally:
            job.end()
    return job.ended()


class _Job:
    """A running launcher, its streams, and what it leaves behind."""

    def __init__(self, grace_seconds: float, token: str) -> None:
        self._grace = grace_seconds
        self._token = token
        self._ended_by: int | None = None
        self._deadline = float("inf")
        self._segments: set[Path] = set()
        self._pipes: dict[int, tuple[BannerFilter, int]] = {}  # read end -> (filter, own stream)
        self._pending: int | None = None  # a signal for the ranks
        self._started = self._heard = time.monotonic()

    def start(self, argv: Sequence[str], environ: Mapping[str, str], filter_stdout: bool) -> None:
        """Start the launcher, bound to the life of this thread."""
        try:
            self._process = subprocess.Popen(
                argv,
                env=_environment(environ, self._token),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if filter_stdout else None,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        except OSError as error:
            raise SetupError(f"cannot start {argv[0]}: {error.strerror}") from error
        for stream, own in ((self._process.stdout, 1), (self._process.stderr, 2)):
            if stream is not None:
                self._pipes[stream.fileno()] = (BannerFilter(), own)

    def watch(self, wake: int) -> None:
        """Pass output and signals on until the launcher has ended."""
        interval, rarest, deaths = _FIRST_SAMPLE_SECONDS, _RAREST_SAMPLE_SECONDS, 0
        sample = time.monotonic() + interval
        with selectors.DefaultSelector() as selector:
            for descriptor in (wake, *self._pipes):
                selector.register(descriptor, selectors.EVENT_READ)
            while self._process.poll() is None:
                for key, _ in selector.select(_POLL_SECONDS):
                    if key.fd == wake:
                        self._signalled(os.read(wake, 64))
                    elif not self._pump(key.fd):
                        selector.unregister(key.fd)
                now = time.monotonic()
                if now - self._heard > _PAUSE_SECONDS:
                    self._flush()
                if now > self._deadline:
                    self._kill()
                if self._pending and self._listening(now):
                    self._send(self._pending)
                    self._pending = None
                if len(self._deaths()) > deaths:  # while the others have its files mapped
                    deaths, rarest, sample = len(self._deaths()), _AFTER_A_DEATH_SECONDS, now
                if now >= sample:
                    self._sample()
                    interval = min(2 * interval, rarest)
                    sample = now + interval

    def end(self) -> None:
        """Leave no process, no output and no file of the job behind."""
        if self._process.poll() is None:
            self._kill()
            self._process.wait()
        grace = 0.5 if self._ended_by is None else 0.0
        left = processes.end(self._token, grace_seconds=grace)
        self._drain()
        for path in processes.sweep(self._segments):
            logger.debug("removed %s, left behind by a killed rank", path)
        if left:
            logger.warning("processes %s do not end; they wait for a device or file system", left)
        if os.isatty(1) and self.exit_code():
            _write(1, b"\r\x1b[K")  # a live line that its rank could not finish
        for death in self._deaths() if self._ended_by is None else ():
            logger.error(_obituary(death))

    def ended(self) -> Ended:
        """How it ended, once it has."""
        asked = self._ended_by is not None
        return Ended(self.exit_code(), () if asked else tuple(self._deaths()), asked)

    def exit_code(self) -> int:
        """The launcher's exit status, or that of the signal which was obeyed."""
        if self._ended_by is not None:
            return 128 + self._ended_by
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def _signalled(self, numbers: bytes) -> None:
        """Act on signals: the first that asks to end asks the launcher, a second one kills."""
        for number in numbers:
            if number in FORWARDED:
                self._pending = number
            elif number not in ENDING:
                continue
            elif self._ended_by is None:
                self._ended_by = number
                self._deadline = time.monotonic() + self._grace
                self._sample()
                self._send(signal.SIGTERM)
            else:
                self._kill()

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _listening(self, now: float) -> bool:
        """Whether the launcher handles signals: once it has ranks; before, one would kill it."""
        if now - self._started > _DEAF_SECONDS:
            return True
        return bool(set(processes.of_job(self._token)) - {self._process.pid})

    def _kill(self) -> None:
        self._deadline = float("inf")
        self._sample()
        processes.kill([self._process.pid, *processes.of_job(self._token)])

    def _sample(self) -> None:
        """Note which shared memory belongs to the job: once ranks are dead nobody can tell."""
        self._segments |= processes.segments(processes.of_job(self._token))

    def _pump(self, descriptor: int) -> bool:
        """Pass on what can be read; whether there may be more."""
        banners, own = self._pipes[descriptor]
        data = os.read(descriptor, 65536)
        self._heard = time.monotonic()
        _write(own, banners.feed(data))
        return bool(data)

    def _flush(self) -> None:
        self._heard = float("inf")
        for banners, own in self._pipes.values():
            _write(own, banners.flush())

    def _drain(self) -> None:
        """Read to the end, but not for ever: a stray process may hold the other end open."""
        stop = time.monotonic() + _DRAIN_SECONDS
        for descriptor in self._pipes:
            more = True
            while more and (left := stop - time.monotonic()) > 0:
                ready, _, _ = select.select([descriptor], [], [], left)
                more = bool(ready) and self._pump(descriptor)
        self._flush()

    def _deaths(self) -> list[Death]:
        return [death for banners, _ in self._pipes.values() for death in banners.deaths]


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor from which the numbers of arriving signals can be read, a byte each.

    Signals that this process was told to ignore (nohup) stay ignored.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    restore: list[Callable[[], object]] = [lambda: os.close(read), lambda: os.close(write)]
    try:
        if threading.current_thread() is threading.main_thread():
            old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            restore.insert(0, lambda: signal.set_wakeup_fd(old))
            for number in (*ENDING, *FORWARDED):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    signal.signal(number, lambda *_: None)
                    restore.insert(0, lambda n=number, b=before: signal.signal(n, b))  # type: ignore[misc]
        yield read
    finally:
        for step in restore:
            step()


def _end_with_parent() -> Callable[[], None]:
    """What the child does before it becomes the launcher: ask for SIGTERM when this thread ends.

    The library is loaded here, because hardly anything is safe between fork and exec.
    """
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _environment(environ: Mapping[str, str], token: str) -> dict[str, str]:
    """The environment of the job."""
    found = {**environ, processes.JOB: token}
    if TERMINAL not in found and os.isatty(1):
        found[TERMINAL] = str(shutil.get_terminal_size().columns)
    return found


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it; a reader that has gone does not stop the job."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return


def _obituary(death: Death) -> str:
    """The line (or two) about a rank that a signal ended."""
    hints: dict[int, str] = {
        signal.SIGKILL: "the kernel does so when memory runs out: ask for more (sbatch --mem), or "
        "lower data.cache_bytes and data.micro_batch_size",
        signal.SIGBUS: "/dev/shm or a file system that files are mapped from may be full",
    }
    hint = hints.get(death.number)
    return f"{death}\nhint: {hint}" if hint else str(death)
