"""The limit of gzip: zlib alone on two threads, over the raw chunks that lie in memory."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from hpc_train.bench.loader.settings import Workload
from hpc_train.data.hdf5 import open_file, stored
from hpc_train.data.shard import raw_chunks

_MOST_BYTES = 2**30
_THREADS = 2


def can(workload: Workload) -> bool:
    """Whether the largest field is compressed by gzip, in chunks of whole samples, and not huge."""
    with open_file(workload.files[0]) as file:
        dataset = file[_largest(workload)]
        found = stored(dataset)
        return (
            found.compression == "gzip"
            and found.chunks is not None
            and found.chunks[1:] == found.shape[1:]
            and sum(file.stat().st_size for file in workload.files) <= _MOST_BYTES
        )


def turn(workload: Workload) -> Generator[int, None, None]:
    """The samples of chunks, decompressed and thrown away."""
    name, chunks = _largest(workload), []
    for path in workload.files:
        with open_file(path) as file:
            rows = file[name].chunks[0]
            chunks += [(raw, rows) for raw in raw_chunks(file[name])]
    size = rows * workload.dataset.fields[name].sample_bytes
    with ThreadPoolExecutor(_THREADS) as pool:
        yield 0
        for first in range(0, len(chunks), 4 * _THREADS):
            part = chunks[first : first + 4 * _THREADS]
            list(pool.map(lambda chunk: _inflate(chunk[0], size), part))
            yield sum(rows for _, rows in part)


def _inflate(raw: bytes, size: int) -> int:
    try:
        return len(zlib.decompress(raw, bufsize=size))
    except zlib.error:  # gzip does not store what it could not shrink
        return len(raw)


def _largest(workload: Workload) -> str:
    return max(workload.fields, key=lambda name: workload.dataset.fields[name].sample_bytes)
