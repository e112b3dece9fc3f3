"""What a shuffle window costs: memory of each rank, and bytes read for a byte that is used.

Found by going through the first windows of an epoch as the ranks would, without reading anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_train.data.cache import Key
from hpc_train.data.dataset import Dataset
from hpc_train.data.order import auto_window, make_order
from hpc_train.data.read import Reader
from hpc_train.plan import Course, Plan

_WINDOWS = 4  # that are gone through


@dataclass(frozen=True)
class Portions:
    """The figures for one number of ranks with equal shares.

    Attributes:
        num_ranks, batch_size: what they hold for.
        window_blocks, block_rows: blocks that are mixed with each other, and rows of a full one.
        window_samples, window_bytes: what a window holds.
        rank_bytes: of the blocks of a window that a rank needs; of the one that needs most.
        read_per_used: bytes read / bytes used, when each rank reads for itself and keeps the blocks
            of a window.
        node_read_per_used: the same when all ranks are on one node and share them.
    """

    num_ranks: int
    batch_size: int
    window_blocks: int
    block_rows: int
    window_samples: int
    window_bytes: int
    rank_bytes: int
    read_per_used: float
    node_read_per_used: float


def find_portions(
    dataset: Dataset, batch_size: int, num_ranks: int, window: int | None = None
) -> Portions:
    """The figures of a data set.

    Args:
        dataset: whose blocks are mixed.
        batch_size: samples of a global batch, >= 1.
        num_ranks: >= 1.
        window: blocks that are mixed; None for what `data.shuffle_window = "auto"` takes.
    """
    blocks = dataset.blocks()
    window = window or auto_window(blocks, batch_size, dataset.sample_bytes)
    window = min(window, len(blocks))
    samples = min(window * blocks.rows, dataset.num_samples)
    reader = Reader(dataset, list(dataset.index.fields), 0)
    order = make_order("window", blocks, 0, window)
    course = Course(dataset.num_samples, batch_size)
    share = Plan((1,) * num_ranks)
    some = max(1, _WINDOWS * samples // batch_size)
    stop = course.per_epoch if len(blocks) <= _WINDOWS * window else min(some, course.per_epoch)
    needed: list[set[Key]] = [set() for _ in range(num_ranks)]
    used = 0
    for batch in course.batches(0, stop):
        ids = order.ids(batch)
        used += len(ids) * dataset.sample_bytes
        for rank in range(num_ranks):
            work = share.work(batch, rank)
            parts = reader.locate(ids[work.start : work.stop]).parts
            needed[rank].update(part.key for part in parts)
    # no block is in two windows
    read = [sum(map(reader.block_bytes, keys)) for keys in needed]
    touched = set().union(*needed)
    shared = sum(map(reader.block_bytes, touched))
    windows = max(1.0, len(touched) / window)  # a batch may be larger than several of them
    return Portions(
        num_ranks=num_ranks,
        batch_size=batch_size,
        window_blocks=window,
        block_rows=blocks.rows,
        window_samples=samples,
        window_bytes=round(shared / windows),
        rank_bytes=round(max(read) / windows),
        read_per_used=sum(read) / used,
        node_read_per_used=shared / used,
    )
