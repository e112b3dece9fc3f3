"""The order of training: which samples global batch t of epoch e holds.

A pure function of (seed, epoch, t), never of the number of ranks or of how a batch is split. What
an order gives is in *cutting order*: a plan cuts it into consecutive parts, one per rank, and
neighbours lie in the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from hpc_train.data.blocks import Blocks
from hpc_train.data.order.full import FullOrder
from hpc_train.data.order.order import Order
from hpc_train.data.order.passes import Passes
from hpc_train.data.order.sequential import SequentialOrder
from hpc_train.data.order.weighted import WeightedOrder, Weights
from hpc_train.data.order.window import WindowOrder
from hpc_train.errors import UsageError, unknown

__all__ = ["ORDERS", "VERSION", "Order", "auto_window", "make_order"]

# Belongs to every checkpoint: what an order gives may not change under the same number.
VERSION = 1


# name -> builder from blocks, seed and window (in blocks)
ORDERS: dict[str, Callable[[Blocks, int, int], Order]] = {
    "window": WindowOrder,
    "full": FullOrder,
    "none": SequentialOrder,
}


def make_order(
    name: str,
    blocks: Blocks,
    seed: int,
    window: int,
    *,
    length: int | None = None,
    weights: Weights | None = None,
) -> Order:
    """The order called `name` over `blocks`.

    Args:
        name: one of `ORDERS`.
        blocks: of the data.
        seed: of the run.
        window: blocks that are mixed with each other, >= 1.
        length: samples of an epoch; None for all that there are.
        weights: how often each sample is used compared with others, shape (num_samples,); None to
            use all of them equally often.
    """
    if name not in ORDERS:
        raise UsageError(unknown("shuffle", name, ORDERS))
    build = ORDERS[name]
    if weights is not None:
        count = length or blocks.num_samples
        return WeightedOrder(blocks, seed, weights, count, lambda b: build(b, seed, window))
    order = build(blocks, seed, window)
    return order if length is None else Passes(order, blocks.num_samples, length)


def auto_window(blocks: Blocks, batch_size: int, sample_bytes: int) -> int:
    """A window that shuffles well at a bounded price, in blocks; at most all of them.

    At least 64 blocks and 16 global batches or 8,192 samples, as long as the window's bytes stay
    within 1 GiB; never fewer than 4 blocks.
    """
    wanted = max(64, -(-max(16 * batch_size, 8192) // blocks.rows))
    affordable = max(4, 2**30 // max(1, blocks.rows * sample_bytes))
    return max(1, min(wanted, affordable, len(blocks)))
