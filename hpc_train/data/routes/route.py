"""What every route gives: the rows of one dataset of one shard, as bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.routes.chunk_table import ChunkTable
from hpc_train.data.routes.mapping import MappedFile, fresh_pages
from hpc_train.errors import DataError

Rows = NDArray[np.uint8]  # (rows, bytes of a sample), the bytes as they are in memory


_OWN_PAGES_BYTES = 256 * 2**10


def empty_rows(num_rows: int, row_bytes: int) -> Rows:
    """Memory for a block, shape (num_rows, row_bytes).

    Large ones are pages of their own, which go back to the system when the block is dropped: the
    heaps of several threads would keep holes worth half the budget.
    """
    size = num_rows * row_bytes
    if size < _OWN_PAGES_BYTES:
        return np.empty((num_rows, row_bytes), np.uint8)
    return fresh_pages(size).reshape(num_rows, row_bytes)


class Route(Protocol):
    """One way of reading one dataset of one shard; safe to call from several threads.

    Attributes:
        name: which of the routes it is.
        copies: whether blocks are copies, and no views of the mapped file.
        whole: all rows of the dataset, where they can be gathered without reading a block first.
    """

    name: str
    copies: bool
    whole: Rows | None

    def block(self, first: int, stop: int, into: Rows | None = None) -> Rows:
        """Rows [first, stop); a copy, in `into` if that is given, or a view of the mapped file.

        Raises:
            OSError: if they cannot be read; another attempt may be worth it.
            DataError: if the file is damaged.
        """

    def warm(self, first: int, stop: int) -> None:
        """Have rows [first, stop) in memory, if they are not copied anyway."""


@dataclass(frozen=True)
class Source:
    """An open dataset and what is known of its storage.

    Attributes:
        dataset: the `h5py.Dataset`; h5py's own lock makes it safe to share.
        file: the mapped file that holds it, None if it is not the file of the shard alone.
        path: of the shard, for messages.
        row_bytes: bytes of one sample.
        filters: names of its filters in the order of writing.
        lacks: those of them that HDF5 itself cannot undo here.
        is_native: whether numbers are stored as they are in memory.
        offset: of a contiguous dataset, None if it is not contiguous or not allocated.
        chunk_table: reads where each chunk lies; None if that cannot be known.
        checksums: CRC-32 of each chunk as stored, shape (chunks,), for chunks of whole samples.
    """

    dataset: Any
    file: MappedFile | None
    path: Path
    row_bytes: int
    filters: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    is_native: bool = True
    offset: int | None = None
    chunk_table: Callable[[], ChunkTable | None] = field(default=lambda: None)
    checksums: NDArray[np.uint32] | None = None

    @property
    def num_rows(self) -> int:
        """Samples in the dataset."""
        return int(self.dataset.shape[0])

    @property
    def has_whole_samples(self) -> bool:
        """Whether each chunk holds whole samples."""
        chunks = self.dataset.chunks
        return chunks is not None and tuple(chunks[1:]) == tuple(self.dataset.shape[1:])

    def check_sum(self, number: int, raw: memoryview | bytes) -> None:
        """Compare chunk `number`, as it is stored, with its checksum, if there is one.

        Raises:
            DataError: if it is damaged.
        """
        if self.checksums is not None and zlib.crc32(raw) != int(self.checksums[number]):
            raise DataError(
                f"chunk {number} of dataset {self.dataset.name.lstrip('/')} is damaged: its "
                "checksum does not match",
                where=str(self.path),
                hint=f"hpc-train data verify {self.path.parent}",
            )
