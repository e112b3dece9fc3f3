"""The processes of a job on this machine, found by a token in their environment, and their files.

Launchers put ranks into sessions and process groups of their own, so neither a group nor the tree
of parents finds them all once a launcher is dead. What every rank inherits is its environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

JOB = "HPC_TRAIN_JOB"  # the variable that holds the token
SHARED_MEMORY = Path("/dev/shm")
_PROC = Path("/proc")
_POLL_SECONDS = 0.02
# What MPI libraries leave behind when their processes are killed: Open MPI, MPICH, Intel MPI.
_SEGMENT = re.compile(r"(sm_segment\..+|vader_segment\..+|mpich_shm_.+|Intel_MPI_.+)")


def of_job(token: str, proc: Path = _PROC) -> list[int]:
    """The ids of this user's processes that carry the token, ascending; without this process."""
    mark = f"{JOB}={token}".encode()
    found = []
    for folder in _own_processes(proc):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return sorted(pid for pid in found if pid != os.getpid())


def end(token: str, *, grace_seconds: float = 0.0, limit_seconds: float = 5.0) -> list[int]:
    """Kill every process of the job that does not end by itself within the grace.

    Returns:
        Those that are still there after `limit_seconds`: the kernel holds them in a system call,
        such as one that waits for a dead file server.
    """
    started = time.monotonic()
    while left := of_job(token):
        elapsed = time.monotonic() - started
        if elapsed >= grace_seconds:
            kill(left)
        if elapsed >= grace_seconds + limit_seconds:
            return left
        time.sleep(_POLL_SECONDS)
    return []


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def segments(pids: Collection[int], proc: Path = _PROC) -> set[Path]:
    """Files of MPI libraries in shared memory that any of the processes has mapped."""
    found = set()
    for pid in pids:
        for path in _mapped(proc / str(pid)):
            if path.parent == SHARED_MEMORY and _SEGMENT.fullmatch(path.name):
                found.add(path)
    return found


def sweep(candidates: Collection[Path], proc: Path = _PROC) -> list[Path]:
    """Remove those of the files which exist, belong to this user, and nobody has mapped.

    Args:
        candidates: files that processes of the ended job had mapped (`segments`): any other file
            may belong to somebody else's job.
        proc: the kernel's folder of processes.

    Returns:
        What was removed.
    """
    if not any(path.exists() for path in candidates):
        return []
    used = {path for folder in _own_processes(proc) for path in _mapped(folder)}
    removed = []
    for path in sorted(set(candidates) - used):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.geteuid():
                path.unlink()
                removed.append(path)
    return removed


def _own_processes(proc: Path) -> Iterator[Path]:
    """The folders of this user's processes."""
    for folder in proc.iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and folder.stat().st_uid == os.geteuid():
                yield folder


def _mapped(folder: Path) -> set[Path]:
    """The files that a process has mapped."""
    try:
        text = (folder / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    return {
        Path(line[line.index("/") :]) for line in text.splitlines() if f" {SHARED_MEMORY}/" in line
    }
