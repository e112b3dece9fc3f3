"""Mean and standard deviation of numbers that come piece by piece.

Of each piece the mean and the sum of squared deviations are joined with those so far: Chan, Golub
and LeVeque, "Algorithms for computing the sample variance", The American Statistician, 1983.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo


def has_statistics(info: FieldInfo) -> bool:
    """Whether a field can have statistics: all but integers of one number, such as labels."""
    return info.shape != () or np.dtype(info.dtype).kind == "f"


class Moments:
    """Count, mean and squared deviations of each channel of a field.

    Args:
        shape: of one sample. From three axes on the first one are channels; of one axis each value
            is a channel; else all numbers are one.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.channels = shape[0] if shape and len(shape) != 2 else 1
        self._count = 0  # of numbers of a channel
        self._mean = np.zeros(self.channels)
        self._squares = np.zeros(self.channels)

    def add(self, values: NDArray[Any]) -> None:
        """Take in samples, shape (n, *shape)."""
        if values.size == 0:
            return
        numbers = values.reshape(len(values), self.channels, -1).astype(np.float64)
        count = numbers.shape[0] * numbers.shape[2]
        with np.errstate(all="ignore"):  # not finite: `result` tells
            mean = numbers.mean(axis=(0, 2))
            squares = ((numbers - mean[:, None]) ** 2).sum(axis=(0, 2))
            apart, whole = mean - self._mean, self._count + count
            self._mean = self._mean + apart * (count / whole)
            self._squares = self._squares + squares + apart**2 * (self._count * count / whole)
        self._count = whole

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel; empty if some are not finite, or of none."""
        if not self._count or not np.isfinite(self._squares).all():
            return (), ()
        std = np.sqrt(self._squares / self._count)
        return tuple(self._mean.tolist()), tuple(std.tolist())
