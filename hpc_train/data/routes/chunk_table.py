"""Where the chunks of a dataset lie in its file: read once, without asking for each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CHUNKS = 2**20  # a table of more costs seconds and tens of megabytes: plain h5py then


@dataclass(frozen=True)
class ChunkTable:
    """Chunks by their number in row-major order of the grid.

    Attributes:
        grid: number of chunks along each axis.
        address: byte offset in the file, -1 for a chunk that is not allocated.
        size: bytes as stored.
        mask: bit i is set where filter i was not applied.
    """

    grid: tuple[int, ...]
    address: NDArray[np.int64]
    size: NDArray[np.int64]
    mask: NDArray[np.uint32]

    @property
    def per_layer(self) -> int:
        """Chunks that share their rows."""
        return prod(self.grid[1:])


def read_table(dataset: Any) -> ChunkTable | None:
    """The table of an open chunked `h5py.Dataset`.

    None if there are too many chunks, or if HDF5 is too old (before 1.12.3) to tell of all at once.
    """
    chunks, shape = dataset.chunks, dataset.shape
    grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if not hasattr(dataset.id, "chunk_iter") or prod(grid) > MOST_CHUNKS:
        return None
    found: list[tuple[int, int, int, int]] = []
    steps = [prod(grid[axis + 1 :]) for axis in range(len(grid))]

    def note(info: Any) -> None:
        place = [o // c for o, c in zip(info.chunk_offset, chunks, strict=True)]
        # after a dataset was shrunk, chunks beyond its end may still be there
        if all(p < n for p, n in zip(place, grid, strict=True)):
            number = sum(p * s for p, s in zip(place, steps, strict=True))
            found.append((number, info.byte_offset, info.size, info.filter_mask))

    dataset.id.chunk_iter(note)
    count = prod(grid)
    table = ChunkTable(
        grid, np.full(count, -1, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint32)
    )
    if found:
        numbers, address, size, mask = np.array(found, np.int64).T
        table.address[numbers] = address
        table.size[numbers] = size
        table.mask[numbers] = mask
    return table
