"""Plain h5py: whatever HDF5 can read, under its global lock."""

from __future__ import annotations

import numpy as np

from hpc_train.data.routes.route import Rows, Source


class Plain:
    """Rows as h5py reads and converts them."""

    name = "plain"
    whole: Rows | None = None

    def __init__(self, source: Source) -> None:
        self._dataset = source.dataset
        self._row_bytes = source.row_bytes
        self._dtype = source.dataset.dtype.newbyteorder("=")

    @classmethod
    def of(cls, source: Source) -> Plain:
        """The route: it reads everything."""
        return cls(source)

    def block(self, first: int, stop: int) -> Rows:
        """Rows [first, stop), copied."""
        found = np.empty((stop - first, *self._dataset.shape[1:]), self._dtype)
        if found.size:
            self._dataset.read_direct(found, np.s_[first:stop])
        return found.reshape(-1).view(np.uint8).reshape(stop - first, self._row_bytes)

    def warm(self, first: int, stop: int) -> None:
        """Nothing: blocks are copies."""
