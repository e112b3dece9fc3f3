"""Whether the blocks of a shuffle window fit the memory that a rank keeps for them."""

from __future__ import annotations

from hpc_train.config import Config
from hpc_train.data import Dataset
from hpc_train.data.hdf5 import available
from hpc_train.errors import DataError
from hpc_train.train.played import is_played


def rereading(config: Config, train: Dataset, window: int, num_ranks: int) -> list[str]:
    """A warning, if compressed blocks of a window will be decoded more than once; else nothing.

    Args:
        config: what was asked for.
        train: the training data; its first shard is opened if there is a doubt.
        window: blocks that are mixed with each other.
        num_ranks: over which they are spread.
    """
    data, rows = config.data, train.blocks().rows
    wanted = min(window * rows, train.num_samples) * train.sample_bytes // num_ranks
    if is_played(config) or data.shuffle != "window" or wanted <= data.cache_bytes:
        return []
    try:
        stored = available(train.path(train.extents()[0].shard))
    except DataError:
        return []  # what reads it says why
    if not any(stored[name].compression for name in train.fields if name in stored):
        return []
    fits = max(1, window * data.cache_bytes // wanted)
    return [
        f"compressed blocks will be decoded again and again: those of a shuffle window take "
        f"{wanted / 2**20:,.0f} MiB on each rank (data.cache_bytes: "
        f"{data.cache_bytes / 2**20:,.0f} MiB); raise data.cache_bytes, or set "
        f"data.shuffle_window = {fits}"
    ]
