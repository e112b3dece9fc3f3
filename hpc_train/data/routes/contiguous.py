"""Contiguous datasets: rows one after the other in the file, gathered straight from its map."""

from __future__ import annotations

from hpc_train.data.routes.mapping import MappedFile
from hpc_train.data.routes.route import Rows, Source


class Contiguous:
    """Rows at `offset + row * row_bytes`."""

    name = "contiguous"
    copies = False

    def __init__(self, file: MappedFile, whole: Rows) -> None:
        self._file = file
        self.whole: Rows | None = whole

    @classmethod
    def of(cls, source: Source) -> Contiguous | None:
        """The route, if the dataset lies in one piece in the shard's file."""
        if source.offset is None or source.file is None or not source.is_native:
            return None
        file = source.file
        return cls(file, file.view(source.offset, source.num_rows, source.row_bytes))

    def block(self, first: int, stop: int, into: Rows | None = None) -> Rows:
        """Rows [first, stop) of the map."""
        self._file.check()
        assert self.whole is not None
        return self.whole[first:stop]

    def warm(self, first: int, stop: int) -> None:
        """Have rows [first, stop) in memory."""
        self._file.warm(self.block(first, stop))
