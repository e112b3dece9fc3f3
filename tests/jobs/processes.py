"""Commands as a user starts them: with a time limit, both outputs, and nothing left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass

from hpc_train.launch import launching, processes

# tests kill launchers, which then leave their files
_sessions = contextlib.ExitStack()
atexit.register(_sessions.close)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Job:
    """A running command, in a process group of its own."""

    def __init__(self, argv, *, cwd, env=None):
        self.token = uuid.uuid4().hex
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {}), processes.JOB: self.token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def signal(self, number):
        """Send a signal to the command itself."""
        self._process.send_signal(number)

    def end(self, seconds=90):
        """Wait for the end; kill all of it, and fail with both outputs, after `seconds`."""
        try:
            out, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            processes.end(self.token)
            out, err = self._process.communicate()
            raise AssertionError(
                f"still running after {seconds} s\n{Ended(-1, out, err)}"
            ) from None
        return Ended(self._process.returncode, out, err)

    def ranks(self):
        """The processes of the job that are still there, this command included."""
        return processes.of_job(self.token)


def hpc_train(*arguments, cwd, env=None, seconds=90):
    """Run `hpc-train ARGUMENTS` to its end."""
    return Job(cli(*arguments), cwd=cwd, env=env).end(seconds)


def cli(*arguments):
    """The command line of `hpc-train ARGUMENTS`."""
    return [sys.executable, "-m", "hpc_train", *map(str, arguments)]


def mpirun(ranks, program):
    """The command line and environment that start `program` on ranks, as a user would."""
    call = _sessions.enter_context(launching(program, ranks))
    return call.argv, call.environ
