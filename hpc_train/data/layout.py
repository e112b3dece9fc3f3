"""How a data set is laid out in files: rows of a chunk, samples of a shard; pure.

field     shape of one chunk          chunk rows: a power of two with at most about 1 MiB of the
image     (chunk rows, C, H, W)       largest field, the same for all fields and shards, so that
label     (chunk rows,)               a block is one chunk of each field
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc_train.data.index import FieldInfo
from hpc_train.errors import UsageError, unknown

CHUNK_BYTES = 2**20
SHARD_BYTES = 256 * 2**20
_FEWEST_CHUNKS = 8
_SMALL_BYTES = 64 * 2**10  # as small a chunk may be for the sake of having several

# name -> arguments of h5py's create_dataset
COMPRESSIONS: dict[str, dict[str, object]] = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
}


@dataclass(frozen=True)
class Layout:
    """Rows of a chunk, samples of every shard but the last, and how chunks are compressed."""

    chunk_rows: int
    samples_per_shard: int
    compression: str = "none"

    def shard_sizes(self, num_samples: int) -> list[int]:
        """Samples of each shard of a data set."""
        full, rest = divmod(num_samples, self.samples_per_shard)
        return [self.samples_per_shard] * full + ([rest] if rest else [])


def plan_layout(
    fields: Mapping[str, FieldInfo],
    num_samples: int | None = None,
    *,
    chunk_rows: int | None = None,
    samples_per_shard: int | None = None,
    compression: str = "none",
) -> Layout:
    """The layout of a data set of `fields`.

    Args:
        fields: at least one.
        num_samples: how many samples there will be, if that is known: small data sets get smaller
            chunks, so that they have several, and none is mostly empty.
        chunk_rows: >= 1, in place of a power of two with at most 1 MiB of the largest field.
        samples_per_shard: >= 1, in place of about 256 MiB.
        compression: one of `COMPRESSIONS`.

    Raises:
        UsageError: if what is asked for is out of range or does not fit together.
    """
    if compression not in COMPRESSIONS:
        raise UsageError(unknown("compression", compression, COMPRESSIONS))
    for name, value in (("chunk_rows", chunk_rows), ("samples_per_shard", samples_per_shard)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be a positive integer ({name}: {value})")
    largest = max(1, *(info.sample_bytes for info in fields.values()))
    whole = max(1, sum(info.sample_bytes for info in fields.values()))
    rows = chunk_rows
    if rows is None:
        rows = _power_of_two(max(1, CHUNK_BYTES // largest))
        if num_samples is not None:
            several = max(num_samples // _FEWEST_CHUNKS, _SMALL_BYTES // largest, 1)
            rows = min(rows, _power_of_two(several), 2 * _power_of_two(max(1, num_samples)))
        if samples_per_shard is not None:
            rows = min(rows, _power_of_two(samples_per_shard))
    if rows * largest >= 2**32:
        raise UsageError(
            f"a chunk must be smaller than 4 GiB (chunk_rows: {rows}, bytes of the largest field "
            f"of a sample: {largest})"
        )
    if samples_per_shard is None:
        samples_per_shard = max(1, SHARD_BYTES // whole // rows) * rows
    return Layout(rows, samples_per_shard, compression)


def _power_of_two(limit: int) -> int:
    """The largest power of two that is at most `limit`."""
    return 1 << (limit.bit_length() - 1)
