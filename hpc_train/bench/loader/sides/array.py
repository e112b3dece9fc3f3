"""All samples in memory, gathered by `np.take` into a buffer that is used again."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from hpc_train.bench.loader.settings import Workload
from hpc_train.data.read import Reader

_MOST_BYTES = 2**30


def can(workload: Workload) -> bool:
    """Whether the data fits memory easily."""
    return workload.dataset.num_samples * workload.sample_bytes <= _MOST_BYTES


def turn(workload: Workload) -> Generator[int, None, None]:
    """Batches from arrays; reading them before does not count."""
    reader = Reader(workload.dataset, workload.fields, 0)
    count = workload.dataset.num_samples
    arrays = reader.buffers(count)
    for first in range(0, count, 4096):
        stop = min(first + 4096, count)
        ids = np.arange(first, stop)
        reader.read(ids, {name: array[first:stop] for name, array in arrays.items()})
    reader.close()
    into = reader.buffers(workload.settings.batch_size)
    yield 0
    for work in workload.works:
        ids = workload.order.ids(work.batch)
        for name, array in arrays.items():
            np.take(array, ids, axis=0, out=into[name][: len(ids)], mode="clip")
        yield len(ids)
