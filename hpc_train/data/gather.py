"""Copying rows of blocks to their places in a batch, from memory that blocks share at once.

    blocks     | slot 0: rows of block a | slot 1: rows of block b |       of one root: an arena, or
    wanted          ^  ^                    ^       ^                      the map of a file
    batch      one `take` for all of them

A `take` for each block would cost more than the copying: a batch has a few rows of many blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Block
from hpc_train.data.request import Part
from hpc_train.data.routes import Rows

Memory = NDArray[np.uint8]  # (bytes,)


def gather_blocks(
    parts: Sequence[Part],
    blocks: Sequence[Block],
    firsts: Sequence[int],
    targets: Mapping[str, Rows],
) -> None:
    """Copy the rows of each part from its block, which begins at row `firsts[k]` of its shard.

    Args:
        parts, blocks, firsts: shape (n,) each.
        targets: by field, shape (rows of the batch, bytes of a row).
    """
    found: dict[tuple[str, int, int], list[tuple[Memory, int, Part]]] = {}
    for part, block, first in zip(parts, blocks, firsts, strict=True):
        for name, (root, begin) in block.roots.items():
            row, rest = divmod(begin, targets[name].shape[1])
            found.setdefault((name, id(root), rest), []).append((root, row - first, part))
    for (name, _, rest), picked in found.items():
        root, target = picked[0][0], targets[name]
        count = (len(root) - rest) // target.shape[1]
        rows = root[rest : rest + count * target.shape[1]].reshape(count, -1)
        wanted = np.concatenate([part.rows + shift for _, shift, part in picked])
        places = np.concatenate([part.places for _, _, part in picked])
        order = np.argsort(places)
        take(rows, wanted[order], target, places[order])


def root_of(rows: Rows, arena: Memory | None) -> tuple[Memory, int]:
    """The memory that rows are a part of, as bytes, and where they begin in it."""
    begin = rows.__array_interface__["data"][0]
    for root in (arena, rows.base):
        if isinstance(root, np.ndarray) and root.ndim == 1 and root.dtype == np.uint8:
            place = begin - root.__array_interface__["data"][0]
            if 0 <= place <= root.size - rows.size:
                return root, place
    return rows.reshape(-1), 0


def take(rows: Rows, wanted: Ids, target: Rows, places: Ids) -> None:
    """target[places] = rows[wanted], both ascending in `places`."""
    first, stop = int(places[0]), int(places[-1]) + 1
    if stop - first == len(places):
        # with mode="raise" NumPy would copy twice; `wanted` was computed, and is in range
        np.take(rows, wanted, axis=0, out=target[first:stop], mode="clip")
    else:
        target[places] = np.take(rows, wanted, axis=0, mode="clip")
