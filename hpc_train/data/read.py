"""Reading samples: whole blocks through h5py, kept within a byte budget, gathered by row."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpc_train.data.blocks import Ids
from hpc_train.data.dataset import Dataset
from hpc_train.errors import DataError

Arrays = dict[str, NDArray[Any]]

_OPEN_FILES = 64


class Reader:
    """Gathers samples of a data set by id; not thread-safe.

    A block is read once as long as it stays among the `cache_bytes` most recently used bytes; the
    block in use is always kept. Files are opened when first needed, the last 64 stay open.

    Attributes:
        bytes_read: bytes of the blocks that were read from files so far.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[str], cache_bytes: int) -> None:
        self._dataset = dataset
        self._fields = {name: dataset.fields[name] for name in fields}
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._blocks: OrderedDict[tuple[int, int], Arrays] = OrderedDict()
        self._files: OrderedDict[int, h5py.File] = OrderedDict()
        extents = dataset.extents()
        self._ends = np.cumsum([extent.size for extent in extents])
        self._shard = np.array([extent.shard for extent in extents], np.int64)
        self._shift = np.array([extent.first for extent in extents]) - (
            self._ends - [extent.size for extent in extents]
        )
        self._rows = np.array([extent.block_rows for extent in extents], np.int64)
        self.bytes_read = 0

    def buffers(self, size: int) -> Arrays:
        """Empty arrays for `size` samples, of shape (size, *field shape), in native byte order."""
        return {
            name: np.empty((size, *info.shape), np.dtype(info.dtype).newbyteorder("="))
            for name, info in self._fields.items()
        }

    def read(self, ids: Ids, into: Arrays) -> None:
        """Gather the samples `ids` (n,) into the first n rows of each array of `into`."""
        extent = np.searchsorted(self._ends, ids, side="right")
        shard, row = self._shard[extent], ids + self._shift[extent]
        number = row // self._rows[extent]
        by_block = np.lexsort((number, shard))
        change = np.flatnonzero((np.diff(shard[by_block]) != 0) | (np.diff(number[by_block]) != 0))
        for places in np.split(by_block, change + 1):
            if places.size == 0:
                continue
            head = places[0]
            rows = int(self._rows[extent[head]])
            block = self._block(int(shard[head]), int(number[head]), rows)
            offsets = row[places] - number[head] * rows
            for name, array in block.items():
                into[name][places] = array[offsets]

    def close(self) -> None:
        """Close all files and forget all blocks."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._blocks.clear()
        self._held_bytes = 0

    def _block(self, shard: int, number: int, rows: int) -> Arrays:
        key = (shard, number)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        first = number * rows
        stop = min(first + rows, self._dataset.index.shards[shard].samples)
        block = self._load(shard, first, stop)
        size = sum(array.nbytes for array in block.values())
        self.bytes_read += size
        self._held_bytes += size
        self._blocks[key] = block
        while self._held_bytes > self._cache_bytes and len(self._blocks) > 1:
            _, dropped = self._blocks.popitem(last=False)
            self._held_bytes -= sum(array.nbytes for array in dropped.values())
        return block

    def _load(self, shard: int, first: int, stop: int) -> Arrays:
        """Rows [first, stop) of a shard."""
        block = self.buffers(stop - first)
        path = self._dataset.path(shard)
        name = ""
        try:
            file = self._file(shard, path)
            for name, array in block.items():
                dataset = file[name]
                if not isinstance(dataset, h5py.Dataset):
                    raise ValueError("it is a group")
                if dataset.shape[1:] != array.shape[1:] or dataset.shape[:1] < (stop,):
                    raise DataError(
                        f"dataset {name} must have shape (>={stop}, *{array.shape[1:]}) as its "
                        f"index says (shape: {dataset.shape})",
                        where=str(path),
                        hint="the file has changed: import it again, or delete its index",
                    )
                dataset.read_direct(array, np.s_[first:stop])
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"cannot read rows {first}..{stop - 1} of {name or 'the file'}: {error}",
                where=str(path),
                hint=f"hpc-train data verify {self._dataset.root}",
            ) from error
        return block

    def _file(self, shard: int, path: Path) -> h5py.File:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        # file locking off: parallel file systems often break it, and nobody writes here
        self._files[shard] = file = h5py.File(path, "r", locking=False)
        while len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file


def delivered_hash(ids: Ids, arrays: Arrays) -> int:
    """A number below 2^32 that tells which samples were delivered, with which bytes.

    The sum over samples, modulo 2^32, of the CRC-32 of the sample's bytes (field by field in the
    order of names) begun with its id. Sums of it over ranks do not depend on how a batch is split.
    """
    if len(ids) == 0:
        return 0
    rows = [arrays[name].reshape(len(ids), -1).view(np.uint8) for name in sorted(arrays)]
    total = 0
    for place, sample in enumerate(ids.tolist()):
        value = sample & 0xFFFFFFFF
        for field in rows:
            value = zlib.crc32(field[place], value)
        total += value
    return total & 0xFFFFFFFF
