"""Plain h5py, as most scripts use it: sample by sample, or a sorted list of rows at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import numpy as np

from hpc_train.bench.loader.settings import Workload
from hpc_train.data.hdf5 import open_file


class Rows:
    """Samples by id from files that are opened when first needed and stay open."""

    def __init__(self, workload: Workload) -> None:
        dataset = workload.dataset
        self._files = workload.files
        self._fields = workload.fields
        self._start = dataset.start
        self._ends = list(accumulate(shard.samples for shard in dataset.index.shards))
        self._open: dict[int, list[Any]] = {}
        self._stack = ExitStack()

    def sample(self, sample: int) -> list[Any]:
        """One sample, field by field."""
        shard, row = self.place(sample)
        return [dataset[row] for dataset in self.datasets(shard)]

    def place(self, sample: int) -> tuple[int, int]:
        """Shard and row of a sample."""
        sample += self._start
        shard = bisect_right(self._ends, sample)
        return shard, sample - (self._ends[shard - 1] if shard else 0)

    def datasets(self, shard: int) -> list[Any]:
        """The open datasets of a shard."""
        if shard not in self._open:
            file = self._stack.enter_context(open_file(self._files[shard]))
            self._open[shard] = [file[name] for name in self._fields]
        return self._open[shard]

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


def one_by_one(workload: Workload) -> Generator[int, None, None]:
    """`dataset[row]` for each sample, stacked."""
    rows = Rows(workload)
    try:
        yield 0
        for work in workload.works:
            samples = [rows.sample(int(sample)) for sample in workload.order.ids(work.batch)]
            batch = [np.stack(column) for column in zip(*samples, strict=True)]
            yield len(batch[0])
    finally:
        rows.close()


def fancy(workload: Workload) -> Generator[int, None, None]:
    """`dataset[sorted rows]` for the samples of each shard, put into the order of the batch."""
    rows = Rows(workload)
    try:
        yield 0
        for work in workload.works:
            ids = workload.order.ids(work.batch)
            places = np.array([rows.place(int(sample)) for sample in ids])
            order = np.lexsort((places[:, 1], places[:, 0]))
            parts = []
            for shard in np.unique(places[:, 0]):
                wanted = places[order][places[order, 0] == shard, 1]
                parts.append([dataset[wanted] for dataset in rows.datasets(int(shard))])
            back = np.argsort(order)
            batch = [np.concatenate(column)[back] for column in zip(*parts, strict=True)]
            yield len(batch[0])
    finally:
        rows.close()
