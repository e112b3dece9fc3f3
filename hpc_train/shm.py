"""Memory maps in /dev/shm that the ranks of a node share.

creator            others of the node
create(size)                            a new file of a random name, sparse: no memory yet
  name   ------->  open(name)
unlink                                  as soon as all have it: from here on nothing can leak
reserve(part)      reserve(part)        memory for one's own part, or an error
map                map

`meet` is all of this; how ranks talk is given to it: this module knows no communication.

Memory comes in huge pages where the kernel makes them (Linux 6.1): a processor has the places of
few pages at hand, and looks all others up in tables, which lie in memory. /dev/shm gives small ones
(unless it is mounted with `huge`), but a program can have them joined (madvise(2), MADV_COLLAPSE),
at once where there is little to join:

    reserve    | 4 KiB | nothing ...            |  one small page where each huge one is wanted
               | 2 MiB                          |  collapse: it is moved there, the rest is zeros
               | 4 KiB | 4 KiB | 4 KiB | ...    |  wherever the kernel has none

Locks on single bytes keep processes apart. They belong to the open file (open file description
locks, fcntl(2)), so the kernel gives them back when their holder closes it or dies, however.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/dev/shm")
PAGE_BYTES = mmap.PAGESIZE
HUGE_BYTES = 2 * 2**20  # with pages of 4 KiB; other kernels have larger ones, and are not asked
_PREFIX = "hpc_train-"
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_FIXED = 0x10  # mmap: at this very address
_COLLAPSE = 25  # madvise


class Segment:
    """A file of shared memory, open in this process; a context manager that closes it.

    A map of it outlives the file: memory returns to the system with the last array over it.

    Attributes:
        path: the file; without a name in the file system after `unlink`.
        size: in bytes.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    @classmethod
    def create(cls, size: int, folder: Path | None = None) -> Segment:
        """A new segment of `size` bytes, > 0, that no other process can have guessed.

        Args:
            size: in bytes; memory is taken by `reserve`, part by part.
            folder: a file system in memory, default `FOLDER`.

        Raises:
            OSError: if it cannot be created there.
        """
        path = (folder or FOLDER) / f"{_PREFIX}{secrets.token_hex(16)}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            return cls(path, descriptor)
        except BaseException:
            path.unlink()
            os.close(descriptor)
            raise

    @classmethod
    def open(cls, path: Path) -> Segment:
        """The segment that another process of this node created.

        Raises:
            OSError: if it is not there, as in a container with a /dev/shm of its own.
        """
        return cls(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))

    def unlink(self) -> None:
        """Remove the name; whoever has the segment open keeps it."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def reserve(self, start: int, stop: int) -> None:
        """Take memory for the bytes start .. stop-1, zeros, near the core that calls.

        A sparse file would be granted even when memory is full, and the first touch of it would
        kill the process with SIGBUS.

        Raises:
            OSError: if there is not enough memory left (ENOSPC), or a limit forbids it.
        """
        first, last = round_up(start, HUGE_BYTES), stop // HUGE_BYTES * HUGE_BYTES
        if last > first:
            self._take_huge_pages(first, last)
        if stop > start:
            os.posix_fallocate(self._descriptor, start, stop - start)

    def _take_huge_pages(self, start: int, stop: int) -> None:
        """Take huge pages for the bytes start .. stop-1, as far as the kernel has any."""
        room = os.fstatvfs(self._descriptor)
        if room.f_bavail * room.f_frsize < stop - start:
            return
        for page in range(start, stop, HUGE_BYTES):
            os.posix_fallocate(self._descriptor, page, PAGE_BYTES)
        try:
            part = self.map()[start:stop]
        except OSError:
            return
        _LIBC.madvise(ctypes.c_void_p(part.ctypes.data), ctypes.c_size_t(part.size), _COLLAPSE)

    def map(self) -> NDArray[np.uint8]:
        """All bytes, shape (size,), shared with whoever maps the segment.

        Raises:
            OSError: if the system refuses so much address space.
        """
        if self.size >= HUGE_BYTES:
            with contextlib.suppress(OSError):
                return self._map_aligned()
        view: Any = mmap.mmap(self._descriptor, self.size)
        return np.frombuffer(view, np.uint8)

    def _map_aligned(self) -> NDArray[np.uint8]:
        # huge pages are mapped as such where their addresses are multiples of their size, too: so
        # there, in a larger range, which is unmapped as one when its last array goes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        # only for reading: what could be written to would count against limits
        around = mmap.mmap(-1, self.size + HUGE_BYTES, flags=flags, prot=mmap.PROT_READ)
        address = round_up(np.frombuffer(around, np.uint8).ctypes.data, HUGE_BYTES)
        self._map_at(address)
        whole: Any = (ctypes.c_ubyte * self.size).from_address(address)
        whole.around = around  # lives as long
        found: NDArray[np.uint8] = np.frombuffer(whole, np.uint8)
        return found

    def _map_at(self, address: int) -> None:
        place, size, file = (
            ctypes.c_void_p(address),
            ctypes.c_size_t(self.size),
            ctypes.c_int(self._descriptor),
        )
        access = mmap.PROT_READ | mmap.PROT_WRITE
        got = _LIBC.mmap(place, size, access, mmap.MAP_SHARED | _FIXED, file, ctypes.c_long(0))
        if got != address:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def try_lock(self, byte: int) -> bool:
        """Lock a byte, if nobody else has; until `unlock`, `close`, or the end of this process.

        Threads of one process that share this object are not kept apart.

        Raises:
            OSError: if the system has no such locks.
        """
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, byte))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, byte: int) -> None:
        """Give a byte back."""
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, byte))

    def is_locked(self, byte: int) -> bool:
        """Whether somebody else holds the lock of a byte."""
        asked = _flock(fcntl.F_WRLCK, byte)
        told = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(struct.unpack(_FLOCK, told)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the file, which gives back its locks; maps stay."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Segment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def meet(
    size: int,
    rank: int,
    num_ranks: int,
    broadcast: Callable[[Any], Any],
    gather: Callable[[Any], list[Any]],
    gap: int = 0,
) -> tuple[Segment | None, str]:
    """A segment that all ranks of a node have open, its name gone, each having reserved its part.

    Args:
        size: in bytes, > 0, the same on all ranks; parts are equal (`part_bytes`), in the order of
            ranks, and what is too little for all of them leaves the last ones shorter.
        rank, num_ranks: this one, and how many call.
        broadcast: gives rank 0's value to all.
        gather: gives every rank's value to all.
        gap: bytes at the end of each part that nobody uses: no memory is taken for them.

    Returns:
        The segment and ""; or None and what went wrong first, on all ranks alike.
    """
    segment, problem, path = None, "", ""
    if rank == 0:
        try:
            segment = Segment.create(size)
            path = str(segment.path)
        except OSError as error:
            problem = str(error.strerror)
    try:
        path = broadcast(path)
        if path and segment is None:
            try:
                segment = Segment.open(Path(path))
            except OSError as error:
                problem = str(error.strerror)
        problem = first_problem(gather, problem)
    finally:
        if rank == 0 and segment is not None:
            segment.unlink()
    if segment is not None and not problem:
        try:
            part = part_of(size, rank, num_ranks, gap)
            segment.reserve(part.start, part.stop)
        except OSError as error:
            problem = str(error.strerror)
        problem = first_problem(gather, problem)
    if segment is not None and problem:
        segment.close()
        segment = None
    return segment, problem


def first_problem(gather: Callable[[Any], list[Any]], problem: str) -> str:
    """The first problem that any rank has; "" if none."""
    return next((str(p) for p in gather(problem) if p), "")


def _flock(kind: int, byte: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)


def whole_pages(size: int) -> int:
    """The least multiple of a page that holds `size` bytes."""
    return round_up(size, PAGE_BYTES)


def part_bytes(size: int) -> int:
    """How far parts of `size` bytes lie apart: whole pages, and huge ones if they fill any."""
    return round_up(size, HUGE_BYTES if size >= HUGE_BYTES else PAGE_BYTES)


def part_of(size: int, rank: int, num_ranks: int, gap: int = 0) -> slice:
    """The bytes that are a rank's part of `size`; arguments as of `meet`."""
    part = part_bytes(-(-size // num_ranks))
    start = min(part * rank, size)
    return slice(start, max(start, min(part * (rank + 1) - gap, size)))


def round_up(size: int, unit: int) -> int:
    """The least multiple of `unit` that holds `size`."""
    return -(-size // unit) * unit


def _load_libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    return libc


_LIBC = _load_libc()
