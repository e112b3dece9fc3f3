"""One shard: an HDF5 file that is filled chunk by chunk, and the checksums of its chunks.

/image              (n, C, H, W)   chunks of (chunk rows, C, H, W)
/label              (n,)           chunks of (chunk rows,)
/_checksums/image   (chunks,)      uint32: CRC-32 of each chunk as it is stored, after filters
/_checksums/label   (chunks,)
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpc_train.data.hdf5 import CHECKSUMS
from hpc_train.data.index import FieldInfo
from hpc_train.data.layout import COMPRESSIONS, Layout

Arrays = Mapping[str, NDArray[Any]]


class ShardFile:
    """A shard that is being written at `path`; `close` makes it whole, `discard` removes it."""

    def __init__(self, path: Path, fields: Mapping[str, FieldInfo], layout: Layout) -> None:
        self.path = path
        self.samples = 0
        self._disk = _Disk(path)
        # the version bounds are those that HDF5 1.10 reads; no times: same input, same bytes
        self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
        self._datasets = {
            name: self._file.create_dataset(
                name,
                shape=(0, *info.shape),
                maxshape=(None, *info.shape),
                chunks=(layout.chunk_rows, *info.shape),
                dtype=info.dtype,
                track_times=False,
                **COMPRESSIONS[layout.compression],
            )
            for name, info in fields.items()
        }

    def append(self, rows: Arrays, count: int) -> None:
        """Write the first `count` rows of each array; whole chunks, but for the last time."""
        first, self.samples = self.samples, self.samples + count
        for name, dataset in self._datasets.items():
            dataset.resize(self.samples, axis=0)
            dataset[first : self.samples] = rows[name][:count]
        self._disk.check()

    def close(self) -> None:
        """Add the checksums, close the file and have it on the disk."""
        # what a cache still holds goes out first: checksums are of what the disk took
        self._file.flush()
        self._disk.check()
        group = self._file.create_group(CHECKSUMS)
        for name, dataset in self._datasets.items():
            sums = np.fromiter((zlib.crc32(raw) for raw in raw_chunks(dataset)), np.uint32)
            group.create_dataset(name, data=sums, track_times=False)
        self._file.close()
        self._disk.sync()
        self._disk.close()
        self._disk.check()

    def discard(self) -> None:
        """Close and remove the file."""
        self._disk.give_up(InterruptedError("given up"))
        self._file.close()
        self._disk.close()
        self.path.unlink(missing_ok=True)


class _Disk:
    """The file under an HDF5 file; it never fails, it remembers.

    HDF5 cannot close a file whose writes fail (a full disk): the process crashes later. So the
    first failure is kept for `check` to raise, and from then on nothing is written or read.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._place = 0
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise the first failure."""
        if self._failure is not None:
            raise self._failure

    def give_up(self, reason: BaseException) -> None:
        """Write nothing more."""
        self._failure = self._failure or reason

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        self._attempt(lambda: os.fsync(self._handle))

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; from the beginning or the end, as h5py does."""
        if whence == os.SEEK_END:
            offset += os.fstat(self._handle).st_size
        self._place = offset
        return offset

    def tell(self) -> int:
        """The place in the file."""
        return self._place

    def write(self, data: Any) -> int:
        """All of `data` at the place."""
        view = memoryview(data).cast("B")
        self._attempt(lambda: self._write_all(view))
        self._place += len(view)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """All of `buffer` from the place; what there is not reads as it is in the buffer."""
        view = memoryview(buffer).cast("B")
        self._attempt(lambda: os.preadv(self._handle, [view], self._place))
        self._place += len(view)
        return len(view)

    def read(self, size: int) -> bytes:
        """`size` bytes from the place; h5py tells a file by having this."""
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def truncate(self, size: int | None = None) -> int:
        """Give the file a length, by default up to the place."""
        length = self._place if size is None else size
        self._attempt(lambda: os.ftruncate(self._handle, length))
        return length

    def flush(self) -> None:
        """Nothing is held back."""

    def _write_all(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self._handle, view[done:], self._place + done)

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self._failure is not None:
            return
        try:
            act()
        # Ctrl-C, too, would break HDF5 in the middle
        except BaseException as failure:
            self._failure = failure


def raw_chunks(dataset: Any) -> Iterator[bytes]:
    """The chunks of a dataset whose chunks hold whole samples, as they are stored, in order."""
    tail = (0,) * (dataset.ndim - 1)
    for first in range(0, len(dataset), dataset.chunks[0]):
        yield dataset.id.read_direct_chunk((first, *tail))[1]


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
