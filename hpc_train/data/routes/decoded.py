"""Chunks that are filtered or cut samples: read raw, decoded outside HDF5's lock, put together.

    raw bytes of a chunk  --codec-->  bytes or byte planes  --copy-->  its box of the block

    byte planes (shuffle)   [all bytes 0][all bytes 1] ...   of the chunk's numbers

Codecs and the copy let other threads run, so as many chunks are decoded at once as there are
readers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.routes import codecs
from hpc_train.data.routes.chunk_table import ChunkTable
from hpc_train.data.routes.mapping import MappedFile
from hpc_train.data.routes.plain import Plain
from hpc_train.data.routes.route import Rows, Source, empty_rows
from hpc_train.errors import DataError


class Decoded:
    """Any grid of chunks, unfiltered or through one codec, with or without shuffle before it."""

    name = "decoded"
    copies = True
    whole: Rows | None = None

    def __init__(self, source: Source, file: MappedFile, table: ChunkTable) -> None:
        dataset = source.dataset
        self._source = source
        self._file = file
        self._table = table
        self._plain = Plain(source)
        self._codec = codecs.find(source.filters[-1]) if source.filters else None
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
        compression = source.filters[source.filters[:1] == ("shuffle",) :]
        if len(compression) > 1 or source.filters == ("shuffle",):
            return None
        if any(codecs.find(name) is None for name in compression):
            return None
        table = source.chunk_table()
        return None if table is None else cls(source, source.file, table)

    def block(self, first: int, stop: int, into: Rows | None = None) -> Rows:
        """Rows [first, stop), decoded."""
        self._file.check()
        rows = empty_rows(stop - first, self._source.row_bytes) if into is None else into
        box = rows.reshape(stop - first, *self._shape[1:], self._itemsize)
        layers = range(first // self._chunks[0], -(-stop // self._chunks[0]))
        try:
            for layer in layers:
                for column in range(self._table.per_layer):
                    self._place(layer * self._table.per_layer + column, box, first)
        except codecs.DECODE_ERRORS as error:
            # not what the filters promise: HDF5 itself decides whether that is an error
            if self._source.lacks or not codecs.OF_HDF5.isdisjoint(self._source.filters):
                raise DataError(
                    f"a chunk of dataset {self._source.dataset.name.lstrip('/')} in rows "
                    f"{first}..{stop - 1} cannot be decompressed",
                    where=str(self._source.path),
                    hint="copy or import it again",
                ) from error
            return self._plain.block(first, stop, into)
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
        data: Any = stored
        if self._codec is not None and self._source.filters[-1] in applied:
            data = self._codec(stored, self._chunk_bytes)
        if len(data) != self._chunk_bytes:
            raise codecs.UndecodableError(f"{len(data)} bytes in place of {self._chunk_bytes}")
        is_shuffled = "shuffle" in applied and self._itemsize > 1
        return np.frombuffer(data, np.uint8), is_shuffled
