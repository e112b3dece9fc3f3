"""Windows: samples of several rows each, taken out of a long series without copying it.

    rows      0  1  2  3  4  5  6  7  8  9      rows = 4, stride = 3, shift = 1
    sample 0  [inputs  ]                        a sample reads rows + shift rows
                 [targets ]
    sample 1           [inputs  ]
                          [targets ]            rows 8, 9: too few for another sample

A window may reach into the next block and the next shard; the last rows that no longer fill one
are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc_train.data.blocks import Extent, Ids
from hpc_train.errors import ConfigError, DataError


@dataclass(frozen=True)
class Windows:
    """How a series is cut into samples.

    Attributes:
        rows: length of the inputs, and of the targets.
        stride: rows from the beginning of one sample to that of the next.
        shift: rows by which targets begin later than inputs.
    """

    rows: int
    stride: int
    shift: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.stride < 1 or self.shift < 0:
            raise ConfigError(
                "data.window and data.stride must be positive, data.shift not negative "
                f"(window: {self.rows}, stride: {self.stride}, shift: {self.shift})"
            )

    @property
    def span(self) -> int:
        """Rows that a sample reads."""
        return self.rows + self.shift

    def count(self, num_rows: int) -> int:
        """Samples in a series of `num_rows` rows."""
        return max(0, (num_rows - self.span) // self.stride + 1)

    def rows_of(self, ids: Ids) -> Ids:
        """The rows of samples `ids` (n,), one sample after another, shape (n * span,)."""
        return (ids[:, None] * self.stride + np.arange(self.span)).reshape(-1)

    def extents(self, extents: Sequence[Extent]) -> list[Extent]:
        """The samples that begin in each extent of rows, and how many of them make a block.

        Blocks of samples lie on blocks of rows where the stride divides their length; elsewhere
        a block of samples lies across the border of two.
        """
        num_samples = self.count(sum(extent.size for extent in extents))
        found, begin = [], 0
        for extent in extents:
            here = -(-begin // self.stride)  # the first sample that begins in it
            begin += extent.size
            count = min(-(-begin // self.stride), num_samples) - here
            if count > 0:
                first = extent.first // self.stride
                length = max(1, extent.block_rows // self.stride)
                found.append(Extent(extent.shard, first, first + count, length))
        return found

    def check(self, num_rows: int, where: str) -> None:
        """Check that there is at least one sample.

        Raises:
            DataError: naming the rows there are.
        """
        if self.count(num_rows) == 0:
            raise DataError(
                f"a window needs {self.span} rows (rows: {num_rows}, data.window: {self.rows}, "
                f"data.shift: {self.shift})",
                where=where,
                hint="choose a smaller data.window",
            )
