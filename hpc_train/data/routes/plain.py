"""Plain h5py: whatever HDF5 can read, under its global lock."""

from __future__ import annotations

import numpy as np

from hpc_train.data.routes.route import Rows, Source, empty_rows


class Plain:
    """Rows as h5py reads and converts them."""

    name = "plain"
    copies = True
    whole: Rows | None = None

    def __init__(self, source: Source) -> None:
        self._dataset = source.dataset
        self._row_bytes = source.row_bytes
        self._dtype = source.dataset.dtype.newbyteorder("=")
        self._source = source
        self._unchecked = set(range(0 if source.checksums is None else len(source.checksums)))

    @classmethod
    def of(cls, source: Source) -> Plain:
        """The route: it reads everything."""
        return cls(source)

    def block(self, first: int, stop: int, into: Rows | None = None) -> Rows:
        """Rows [first, stop), copied; a chunk that has a checksum is checked the first time."""
        if self._unchecked:
            self._check(first, stop)
        rows = empty_rows(stop - first, self._row_bytes) if into is None else into
        if rows.size:
            found = rows.reshape(-1).view(self._dtype)
            shape = (stop - first, *self._dataset.shape[1:])
            self._dataset.read_direct(found.reshape(shape), np.s_[first:stop])
        return rows

    def warm(self, first: int, stop: int) -> None:
        """Nothing: blocks are copies."""

    def _check(self, first: int, stop: int) -> None:
        """Check the chunks of rows [first, stop) that were not checked yet."""
        chunk_rows = self._dataset.chunks[0]
        tail = (0,) * (self._dataset.ndim - 1)
        for number in range(first // chunk_rows, -(-stop // chunk_rows)):
            if number in self._unchecked:
                _, raw = self._dataset.id.read_direct_chunk((number * chunk_rows, *tail))
                self._source.check_sum(number, raw)
                self._unchecked.discard(number)
