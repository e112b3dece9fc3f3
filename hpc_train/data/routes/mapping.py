"""A file mapped for reading, so that a bad offset or a short file is an error and no signal.

Touching a mapped page beyond the end of the file kills the process with SIGBUS. So every view is
checked against the size of the file, and the size again before each use: what was truncated since
it was opened is found, except in the microseconds between the check and the use.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import DataError

_POPULATE_READ = 22  # madvise, Linux 5.14: read the pages in now, and report what cannot be read
_POPULATE_WRITE = 23  # the same for pages that will be written
_NO_RESERVE = 0x4000  # mmap: memory that is never touched is not counted
_HUGE_BYTES = 2 * 2**20
_PIECE_BYTES = 2**18
_HARDWARE_POISON = 133  # Linux's errno of broken memory, which Python has no name for


class MappedFile:
    """A file that is open and mapped as a whole, until `close`; views outlive it safely."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self._handle).st_size
            self._bytes = np.empty(0, np.uint8)
            if self.size:
                mapped = mmap.mmap(self._handle, self.size, access=mmap.ACCESS_READ)
                self._bytes = np.frombuffer(mapped, np.uint8)
        except BaseException:
            os.close(self._handle)
            raise

    def close(self) -> None:
        """Close the file; the map goes when the last view of it does."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)
            self._bytes = np.empty(0, np.uint8)

    def view(self, offset: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """`rows` rows from `offset` on, shape (rows, row_bytes).

        Raises:
            DataError: if the file is too short for them.
        """
        stop = offset + rows * row_bytes
        if offset < 0 or stop > self.size:
            raise _short(self.path, stop, self.size)
        return self._bytes[offset:stop].reshape(rows, row_bytes)

    def check(self) -> None:
        """Check that the file is as long as it was.

        Raises:
            DataError: if it was truncated: its map may not be touched any more.
        """
        size = os.fstat(self._handle).st_size
        if size < self.size:
            raise _short(self.path, self.size, size)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, copied.

        Raises:
            OSError: if the system cannot read them.
            DataError: if the file is too short for them.
        """
        found = os.pread(self._handle, size, offset)
        while 0 < len(found) < size:  # signals and some file systems cut reads short
            more = os.pread(self._handle, size - len(found), offset + len(found))
            if not more:
                break
            found += more
        if len(found) < size:
            raise _short(self.path, offset + size, os.fstat(self._handle).st_size)
        return found

    def warm(self, view: NDArray[np.uint8]) -> None:
        """Have the pages of a view in memory.

        Raises:
            OSError: if the system cannot read them.
        """
        if view.size == 0:
            return
        self.check()
        begin = view.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        offset = begin - self._bytes.ctypes.data
        length = view.ctypes.data + view.size - begin
        self._load(offset, offset + length)
        if _madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _POPULATE_READ):
            code = ctypes.get_errno()
            if code in (errno.EFAULT, errno.EIO, _HARDWARE_POISON):
                raise OSError(errno.EIO, "cannot read mapped pages")

    def _load(self, first: int, stop: int) -> None:
        """Read bytes [first, stop) into the page cache, as far as they are not there.

        Reading in order, piece by piece, the system reads ahead; page faults, and its advice to
        read much at once, took half as long again.
        """
        scratch = None
        for begin in range(first, stop, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, stop)
            if self._is_cached(begin) and self._is_cached(end - 1):
                continue
            scratch = memoryview(bytearray(_PIECE_BYTES)) if scratch is None else scratch
            os.preadv(self._handle, [scratch[: end - begin]], begin)

    def _is_cached(self, offset: int) -> bool:
        """Whether a byte can be read without waiting for a disk; False if nobody knows."""
        try:
            return os.preadv(self._handle, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except OSError:  # it would wait, or the file system cannot tell
            return False


def fresh_pages(num_bytes: int) -> NDArray[np.uint8]:
    """Memory of its own, given back when it is dropped; got at once, not page by page when used."""
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found = np.frombuffer(pages, np.uint8)
    # a kernel that does not know it gives the pages when they are touched
    _madvise(ctypes.c_void_p(found.ctypes.data), ctypes.c_size_t(num_bytes), _POPULATE_WRITE)
    return found


def huge_pages(num_bytes: int) -> mmap.mmap:
    """Memory of its own, in huge pages where the system has them, taken when it is touched.

    A processor looks up an address in a table of few pages: copying to scattered places in small
    ones takes a quarter longer.

    Raises:
        OSError: if the system refuses so much address space.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    pages = mmap.mmap(-1, -(-num_bytes // _HUGE_BYTES) * _HUGE_BYTES, flags=flags)
    with contextlib.suppress(OSError, AttributeError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _load_madvise() -> ctypes._NamedFuncPointer:
    """The system's madvise; unlike `mmap.madvise`, it lets other threads run meanwhile."""
    return ctypes.CDLL(None, use_errno=True).madvise


_madvise = _load_madvise()


def _short(path: Path, wanted: int, size: int) -> DataError:
    return DataError(
        f"file is truncated: it must have at least {wanted:,} bytes (size: {size:,})",
        where=str(path),
        hint="copy or import it again",
    )
