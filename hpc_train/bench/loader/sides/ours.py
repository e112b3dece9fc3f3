"""This system: batches read ahead by threads, hashed, in buffers that are used again."""

from __future__ import annotations

from collections.abc import Generator

from hpc_train.bench.loader.settings import Workload
from hpc_train.data import Loader


def turn(workload: Workload) -> Generator[int, None, None]:
    """Batches from a loader that has read nothing before."""
    settings = workload.settings
    with Loader(
        workload.dataset, workload.order, workload.fields, cache_bytes=settings.cache_bytes
    ) as loader:
        yield 0
        loader.follow(iter(workload.works))
        for work in workload.works:
            yield len(loader.get(work).ids)
