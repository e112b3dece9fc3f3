"""One shard: an HDF5 file that is filled chunk by chunk, and the checksums of its chunks.

/image              (n, C, H, W)   chunks of (chunk rows, C, H, W)
/label              (n,)           chunks of (chunk rows,)
/_checksums/image   (chunks,)      uint32: CRC-32 of each chunk as it is stored, after filters
/_checksums/label   (chunks,)
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping
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
        # the version bounds are those that HDF5 1.10 reads; no times: same input, same bytes
        self._file = h5py.File(path, "w", libver=("v110", "v110"), locking=False)
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

    def close(self) -> None:
        """Add the checksums, close the file and have it on the disk."""
        group = self._file.create_group(CHECKSUMS)
        for name, dataset in self._datasets.items():
            sums = np.fromiter((zlib.crc32(raw) for raw in raw_chunks(dataset)), np.uint32)
            group.create_dataset(name, data=sums, track_times=False)
        self._file.close()
        sync(self.path)

    def discard(self) -> None:
        """Close and remove the file, also where the disk is full."""
        # an empty file has room for what HDF5 still holds: else it could never be closed
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self._file.close()
        self.path.unlink(missing_ok=True)


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
