"""Chunks that are filtered or cut samples: read raw, decoded outside HDF5's lock, put together.

    raw bytes of a chunk  --zlib-->  bytes or byte planes  --copy-->  its box of the block

    byte planes (shuffle)   [all bytes 0][all bytes 1] ...   of the chunk's numbers

zlib and the copy let other threads run, so as many chunks are decoded at once as there are readers.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.routes.chunk_table import ChunkTable
from hpc_train.data.routes.mapping import MappedFile
from hpc_train.data.routes.plain import Plain
from hpc_train.data.routes.route import Rows, Source, empty_rows

_PIPELINES = {(), ("gzip",), ("shuffle", "gzip")}


class Decoded:
    """Any grid of chunks, unfiltered or through gzip, with or without shuffle."""

    name = "decoded"
    whole: Rows | None = None

    def __init__(self, source: Source, file: MappedFile, table: ChunkTable) -> None:
        dataset = source.dataset
        self._source = source
        self._file = file
        self._table = table
        self._plain = Plain(source)
        self._chunks = tuple(int(n) for n in dataset.chunks)
        self._shape = tuple(int(n) for n in dataset.shape)
        self._itemsize = int(dataset.dtype.itemsize)
        self._chunk_bytes = int(np.prod(self._chunks, dtype=np.int64)) * self._itemsize
        self._fill = np.asarray(dataset.fillvalue, dataset.dtype).reshape(1).view(np.uint8)
        last = int(np.argmax(table.address + table.size))
        if table.address[last] >= 0:
            file.view(int(table.address[last]), 1, int(table.size[last]))

    @classmethod
    def of(cls, source: Source) -> Decoded | None:
        """The route, if the chunks lie in the shard's file and their filters are known here."""
        if source.dataset.chunks is None or not source.is_native or source.file is None:
            return None
        if source.filters not in _PIPELINES:
            return None
        table = source.chunk_table()
        return None if table is None else cls(source, source.file, table)

    def block(self, first: int, stop: int) -> Rows:
        """Rows [first, stop), decoded."""
        self._file.check()
        rows = empty_rows(stop - first, self._source.row_bytes)
        box = rows.reshape(stop - first, *self._shape[1:], self._itemsize)
        layers = range(first // self._chunks[0], -(-stop // self._chunks[0]))
        try:
            for layer in layers:
                for column in range(self._table.per_layer):
                    self._place(layer * self._table.per_layer + column, box, first)
        except (zlib.error, ValueError):
            # not what the filters promise: HDF5 itself decides whether that is an error
            return self._plain.block(first, stop)
        return rows

    def warm(self, first: int, stop: int) -> None:
        """Nothing: blocks are copies."""

    def _place(self, number: int, box: NDArray[np.uint8], first: int) -> None:
        """Decode chunk `number` and copy what it has of the box, whose first row is `first`."""
        corner = [
            int(place) * size
            for place, size in zip(
                np.unravel_index(number, self._table.grid), self._chunks, strict=True
            )
        ]
        corner[0] -= first
        ours, theirs = [], []
        for begin, size, length in zip(corner, self._chunks, box.shape, strict=False):
            ours.append(slice(max(begin, 0), min(begin + size, length)))
            theirs.append(slice(max(-begin, 0), min(size, length - begin)))
        target = box[tuple(ours)]
        raw = self._raw(number)
        if raw is None:
            target[...] = self._fill
            return
        data, is_shuffled = raw
        if not is_shuffled:
            target[...] = data.reshape(*self._chunks, self._itemsize)[tuple(theirs)]
            return
        for plane, values in enumerate(data.reshape(self._itemsize, *self._chunks)):
            target[..., plane] = values[tuple(theirs)]

    def _raw(self, number: int) -> tuple[Rows, bool] | None:
        """The decompressed bytes of a chunk, and whether they are byte planes; None: no chunk."""
        address = int(self._table.address[number])
        if address < 0:
            return None
        stored = self._file.read(address, int(self._table.size[number]))
        if self._table.per_layer == 1:
            self._source.check_sum(number, stored)
        mask = int(self._table.mask[number])
        applied = [f for bit, f in enumerate(self._source.filters) if not mask >> bit & 1]
        if "gzip" in applied:
            stored = zlib.decompress(stored, bufsize=self._chunk_bytes)
        if len(stored) != self._chunk_bytes:
            raise ValueError(f"{len(stored)} bytes in place of {self._chunk_bytes}")
        is_shuffled = "shuffle" in applied and self._itemsize > 1
        return np.frombuffer(stored, np.uint8), is_shuffled
