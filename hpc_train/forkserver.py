"""The fork server: where processes come from that have everything imported already.

    replacement                     fork server, one a node           its fork
    a bare Python: connects ------> has imported torch and all
      <- "!"                        that its starter had
    argv, environment, files -----> fork -------------------------->  is what the bare one would be,
      <- number of the fork                                           without the two seconds
      ...                           waits                             MPI_Init, trains
      <- how it ended                                       <------   ends
    ends in the same way

The launcher knows the bare Python, whose end is the fork's; where that is killed, the fork is; both
are in one process group, so that signals reach them alike. Where no server answers, the bare Python
does all of it itself.

The server ends when nobody is connected any more: each rank of the node holds a connection, which
the kernel closes for those that die. It listens on a name of the node, not on a file, and hears
nobody but processes of its own user. It starts no threads of its own, and opens neither MPI nor
data nor GPU.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

NAME = "HPC_TRAIN_FORKSERVER"  # the variable that tells which one
_SERVER = "from hpc_train.forkserver import main; main()"
_HEAD = struct.Struct("!Q")  # bytes of what follows
_CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7)
_BACKLOG = 1024
_READY = b"!"
_READY_SECONDS = 2.0  # one that still imports is not waited for
_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_is_fork = False


class Hold:
    """A connection of this process, for as long as the server shall be there.

    Args:
        name: the server's.

    Raises:
        OSError: if there is none.
    """

    def __init__(self, name: str) -> None:
        self._connection = _connect(name)
        self._connection.setblocking(False)
        self._is_ready = False
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it has imported everything, or never will."""
        if not self._is_ready:
            try:
                self._connection.recv(1)
            except BlockingIOError:
                return False
            except OSError:  # it is gone
                pass
            self._is_ready = True
        return True

    def start(self, listener: socket.socket, flags: Sequence[str], modules: Sequence[str]) -> None:
        """Start the server that listens there."""
        number = listener.fileno()
        self._server = subprocess.Popen(
            [sys.executable, *flags, "-c", _SERVER, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # a launcher waits until nobody has a rank's output open
            stderr=subprocess.DEVNULL,
            pass_fds=[number],
            process_group=0,  # what is sent to the rank that starts it is not for it
        )
        assert self._server.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._server.stdin as pipe:
            pipe.write(json.dumps(list(modules)).encode())

    def close(self) -> None:
        """It is not needed any more, as far as this process knows."""
        self._connection.close()
        if self._server is not None:
            self._server.poll()
            # it ends when others let go as well, perhaps after this process: nothing to warn of
            self._server.returncode = self._server.returncode or 0


def start(name: str, flags: Sequence[str], modules: Sequence[str]) -> Hold:
    """Start a server on this node, and hold on to it.

    Args:
        name: that nobody else has.
        flags: of the interpreter.
        modules: what it imports, in that order; what cannot be imported is left out.

    Raises:
        OSError: if it cannot be started.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address(name))
        listener.listen(_BACKLOG)
        hold = Hold(name)
        try:
            hold.start(listener, flags, modules)
        except BaseException:
            hold.close()
            raise
    return hold


def ask() -> None:
    """Let a fork take the place of this process, and end as it does; return if there is none."""
    name = os.environ.get(NAME)
    if not name or _is_fork:
        return
    told = {
        "process": os.getpid(),
        "group": os.getpgrp(),
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "environ": dict(os.environ),
        "folder": os.getcwd(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "ignored": [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN],
    }
    with contextlib.suppress(OSError, ValueError), _connect(name) as connection:
        if connection.recv(1) != _READY:
            return
        body = json.dumps(told).encode()
        connection.settimeout(_ANSWER_SECONDS)
        socket.send_fds(connection, [_HEAD.pack(len(body))], [0, 1, 2])
        connection.sendall(body)
        _end_like(connection, _HEAD.unpack(_exactly(connection, _HEAD.size))[0])


def _end_like(connection: socket.socket, fork: int) -> NoReturn:
    """Wait for the end of a fork, and end like it."""
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the fork hears it, too
    connection.settimeout(None)
    watched = None
    with contextlib.suppress(OSError, AttributeError):  # Linux 5.3
        watched = os.pidfd_open(fork)
    code = 0
    try:
        code = os.waitstatus_to_exitcode(_HEAD.unpack(_exactly(connection, _HEAD.size))[0])
    except (OSError, ValueError):  # the server is gone, and what it would have told
        if watched is not None:  # a zombie is over, too, though it has its number still
            select.select([watched], [], [])
        with contextlib.suppress(OSError):
            while watched is None:
                os.kill(fork, 0)
                time.sleep(_LOOK_SECONDS)
    if code < 0:
        with contextlib.suppress(OSError):  # not to be had for SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


def main() -> None:
    """Be a fork server, or, later, one of its forks."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    for name in json.load(sys.stdin):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the forks' collector would write to every page that they share
    server = _Server(listener)
    told = server.serve()
    if told is not None:
        _become(told, server.files)


class _Server:
    """Serves until nobody is connected.

    Attributes:
        files: in a fork, its standard input, output and error.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.files: list[int] = []
        self._listener = listener
        self._peers: set[socket.socket] = set()
        self._forks: dict[int, socket.socket] = {}
        self._bell, self._rope = socket.socketpair()
        for one in (self._bell, self._rope):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        for one in (listener, self._bell):
            self._selector.register(one, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """None once nobody is connected; in a fork, what it shall be."""
        while True:
            for key, _ in self._selector.select():
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                if peer is self._listener:
                    self._accept()
                elif peer is self._bell:
                    self._reap()
                elif peer in self._peers and (told := self._hear(peer)) is not None:
                    return told
            if not self._peers:
                return None

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # gone again, or too many files are open: it will import for itself
            return
        if not _is_ours(peer):
            peer.close()
            return
        peer.settimeout(_ANSWER_SECONDS)
        self._peers.add(peer)
        self._selector.register(peer, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            peer.sendall(_READY)

    def _drop(self, peer: socket.socket) -> None:
        """Forget one that has gone; its fork must not live on without it."""
        self._selector.unregister(peer)
        self._peers.discard(peer)
        peer.close()
        for fork in [one for one, owner in self._forks.items() if owner is peer]:
            os.kill(fork, signal.SIGKILL)  # not reaped yet, so the number is still its own

    def _hear(self, peer: socket.socket) -> dict[str, Any] | None:
        """Fork for one that asks; None but in the fork."""
        files: list[int] = []
        try:
            head, files, _, _ = socket.recv_fds(peer, _HEAD.size, 3)
            told = json.loads(_exactly(peer, _HEAD.unpack(head)[0]))
            # or its group cannot be joined, and signals would not be heard
            if os.getsid(told["process"]) != os.getsid(0):
                raise ValueError
            fork = os.fork()
            if not fork:
                self._leave(files)
                return dict(told)
            self._forks[fork] = peer
            os.setpgid(fork, told["group"])
            peer.sendall(_HEAD.pack(fork))
        except (OSError, ValueError, struct.error):
            self._drop(peer)
        for file in files:
            os.close(file)
        return None

    def _reap(self) -> None:
        """Tell how forks have ended."""
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                peer = self._forks.pop(ended[0])
                if peer in self._peers:
                    with contextlib.suppress(OSError):
                        peer.sendall(_HEAD.pack(ended[1]))
                    self._drop(peer)

    def _leave(self, files: list[int]) -> None:
        """Be the fork, with these files, and have nothing of the server's any more."""
        global _is_fork
        _is_fork, self.files = True, files
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for one in (self._listener, self._bell, self._rope, *self._peers):
                one.close()
        except BaseException:  # there must not be two servers
            os._exit(1)


def _become(told: dict[str, Any], files: Sequence[int]) -> None:
    """Be the process that asked."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environ"])
    os.sched_setaffinity(0, told["cpus"])
    for number in told["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    sys.argv, sys.orig_argv = told["argv"], told["orig_argv"]
    if isinstance(sys.stdout, io.TextIOWrapper):  # it was made for another file
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all forks would draw the same numbers; Python's own knows forks
    text = sys.orig_argv[sys.orig_argv.index("-c") + 1]
    exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})


def _address(name: str) -> str:
    """In the kernel's own space of names; nodes that share that have other host names."""
    return f"\0hpc_train-{name}-{os.uname().nodename}"


def _connect(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_READY_SECONDS)
        connection.connect(_address(name))
        if not _is_ours(connection):
            raise PermissionError
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ours(connection: socket.socket) -> bool:
    """Whether the other side belongs to the same user."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.getuid())


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes; ValueError if the other side ends before."""
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ValueError
        found += more
    return found
