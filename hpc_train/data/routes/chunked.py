"""Chunks of whole samples that went through no filter: each one a piece of contiguous rows."""

from __future__ import annotations

import numpy as np

from hpc_train.data.routes.chunk_table import ChunkTable
from hpc_train.data.routes.mapping import MappedFile
from hpc_train.data.routes.route import Rows, Source


class Chunked:
    """Rows of chunk k at `address[k] + (row - k * chunk rows) * row_bytes`.

    A chunk that has a checksum is checked when it is first read.
    """

    name = "chunked"
    copies = False
    whole: Rows | None = None

    def __init__(self, source: Source, file: MappedFile, table: ChunkTable) -> None:
        self._source = source
        self._file = file
        self._address = table.address.tolist()
        self._chunk_rows = int(source.dataset.chunks[0])
        self._is_checked = np.zeros(len(self._address), bool)
        size = self._chunk_rows * source.row_bytes
        file.view(int(table.address.max()), 1, size)  # the last one ends within the file

    @classmethod
    def of(cls, source: Source) -> Chunked | None:
        """The route, if all chunks hold whole samples, are in the shard's file and unfiltered."""
        if source.filters or not source.is_native or not source.has_whole_samples:
            return None
        table = source.chunk_table()
        if source.file is None or table is None or table.address.min() < 0:
            return None
        if (table.size != source.dataset.chunks[0] * source.row_bytes).any():
            return None
        return cls(source, source.file, table)

    def block(self, first: int, stop: int, into: Rows | None = None) -> Rows:
        """Rows [first, stop): a view of the map if they lie in one chunk."""
        self._file.check()
        parts = [self._part(number, first, stop) for number in self._numbers(first, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def warm(self, first: int, stop: int) -> None:
        """Have rows [first, stop) in memory."""
        for number in self._numbers(first, stop):
            self._file.warm(self._part(number, first, stop))

    def _numbers(self, first: int, stop: int) -> range:
        """The chunks that hold rows [first, stop)."""
        return range(first // self._chunk_rows, -(-stop // self._chunk_rows))

    def _part(self, number: int, first: int, stop: int) -> Rows:
        """What chunk `number` has of rows [first, stop)."""
        chunk = self._file.view(self._address[number], self._chunk_rows, self._source.row_bytes)
        if not self._is_checked[number]:
            self._source.check_sum(number, chunk.data)
            self._is_checked[number] = True
        base = number * self._chunk_rows
        return chunk[max(first - base, 0) : stop - base]
