"""PyTorch's DataLoader over a data set that reads sample by sample with h5py."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hpc_train.bench.loader.settings import Workload
from hpc_train.bench.loader.sides.plain import Rows


class Samples(Dataset[Any]):
    """Samples by id; each process opens the files for itself: HDF5 does not survive forks."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._rows: Rows | None = None

    def __len__(self) -> int:
        return self._workload.dataset.num_samples

    def __getitem__(self, sample: int) -> list[Any]:
        if self._rows is None:
            self._rows = Rows(self._workload)
        # scalars become arrays, so that all fields are collated in the same way
        return [torch.from_numpy(np.asarray(value)) for value in self._rows.sample(int(sample))]


def without_workers(workload: Workload) -> Generator[int, None, None]:
    """Reading in the training process."""
    return _turn(workload, 0)


def with_workers(workload: Workload) -> Generator[int, None, None]:
    """Reading in two forked processes; their start does not count, their first batches do."""
    return _turn(workload, 2)


def _turn(workload: Workload, num_workers: int) -> Generator[int, None, None]:
    batches = [workload.order.ids(work.batch).tolist() for work in workload.works]
    loader = DataLoader(Samples(workload), batch_sampler=batches, num_workers=num_workers)
    iterator = iter(loader)
    yield 0
    for batch in iterator:
        yield len(batch[0])
