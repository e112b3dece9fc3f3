"""How often samples shall be used, read from the data: by class, or by a field of weights."""

from __future__ import annotations

import numpy as np

from hpc_train.data.dataset import Dataset
from hpc_train.data.order.weighted import Weights
from hpc_train.data.read import Reader
from hpc_train.errors import DataError

_READ_AT_ONCE = 2**16


def balancing(dataset: Dataset, label: str) -> Weights:
    """Weights with which every class that occurs is used equally often, shape (num_samples,).

    Args:
        dataset: where samples come from.
        label: field of integers, one a sample.
    """
    _, classes, counts = np.unique(_read(dataset, label), return_inverse=True, return_counts=True)
    found: Weights = 1.0 / counts[classes]
    return found


def stated(dataset: Dataset, name: str) -> Weights:
    """The weights that stand in the field `name`, shape (num_samples,).

    Raises:
        DataError: if some are negative or not finite, or none is positive.
    """
    found = _read(dataset, name).astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if wrong.size:
        raise DataError(
            f"weights must be finite and >= 0 (sample {wrong[0]}: {found[wrong[0]]:g})",
            where=f"{dataset.name}, field {name}",
        )
    if not found.any():
        raise DataError("some weight must be positive", where=f"{dataset.name}, field {name}")
    return found


def _read(dataset: Dataset, name: str) -> Weights:
    """All values of a field of one number a sample."""
    reader = Reader(dataset, [name], 0)
    found = reader.buffers(dataset.num_samples)
    try:
        for first in range(0, dataset.num_samples, _READ_AT_ONCE):
            stop = min(first + _READ_AT_ONCE, dataset.num_samples)
            reader.read(np.arange(first, stop), {name: found[name][first:stop]})
    finally:
        reader.close()
    return found[name]
