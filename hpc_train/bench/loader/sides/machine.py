"""The limit of the machine: the bytes of the files, from beginning to end, with `preadv`."""

from __future__ import annotations

import os
from collections.abc import Generator

from hpc_train.bench.loader.settings import Workload

_PIECE_BYTES = 2**20


def turn(workload: Workload) -> Generator[int, None, None]:
    """Samples as they would come if each took its part of the bytes of the files."""
    files = workload.files
    stored_bytes = sum(file.stat().st_size for file in files)
    stored_samples = sum(shard.samples for shard in workload.dataset.index.shards)
    buffer = bytearray(_PIECE_BYTES)
    yield 0
    done = told = 0
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            offset = 0
            while count := os.preadv(handle, [buffer], offset):
                offset += count
                done += count
                samples = done * stored_samples // stored_bytes
                yield samples - told
                told = samples
        finally:
            os.close(handle)
