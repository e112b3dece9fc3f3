"""Whether the ranks of a node share blocks, and how they come by the memory: all agree, or none.

local rank 0     others
decide  ------>  the same layout
meet    <----->  meet (shm.py)
lock    <----->  lock    all could, or one could not: then each keeps blocks for itself
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from hpc_train import shm
from hpc_train.data.dataset import Dataset
from hpc_train.data.node_cache import Layout, NodeCache, slot_bytes
from hpc_train.data.read import Reader
from hpc_train.world import Group, Json

logger = logging.getLogger(__name__)

Mode = Literal["auto"] | bool
_MOST_SLOTS = 2**14  # the table is searched from end to end
_MEBIBYTE = 2**20


def share_blocks(
    node: Group, dataset: Dataset, fields: Sequence[str], cache_bytes: int, mode: Mode
) -> NodeCache | None:
    """This rank's side of the blocks that the ranks of a node share; collective among them.

    None on all of them where it is not wanted, does not pay or cannot be had; the last is told in
    one line.

    Args:
        node: the ranks of this node.
        dataset, fields: what will be read.
        cache_bytes: what each rank may keep in memory.
        mode: "auto" shares what is decoded or copied, where that takes at most half of the free
            shared memory; True as long as it fits.
    """
    if mode is False or node.world.size == 1:
        return None
    told = {"problem": ""}
    if node.world.rank == 0:
        told = _offer(node.world.size, dataset, fields, cache_bytes, mode)
    told = node.broadcast(told)
    if "layout" not in told:
        _complain(node, told["problem"])
        return None
    layout, world = _layout_of(told["layout"]), node.world
    segment, problem = shm.meet(layout.size, world.rank, world.size, node.broadcast, node.gather)
    cache = None
    if segment is not None:
        try:
            cache = NodeCache(segment, layout, world.rank)
        except OSError as error:
            problem = str(error.strerror or error)
        problem = shm.first_problem(node.gather, problem)
        if problem:
            segment.close()
            cache = None
    if problem:
        _complain(node, f"shared memory cannot be had in {shm.FOLDER} ({problem.lower()})")
    return cache


def plan_layout(
    dataset: Dataset, copied: Sequence[str], fields: Sequence[str], cache_bytes: int, num_ranks: int
) -> Layout | None:
    """How the memory is laid out; None if not even one block fits into a rank's budget.

    Args:
        dataset: whose blocks are shared.
        copied: the fields that are shared.
        fields: all that are read: what is not shared counts, too.
        cache_bytes: budget of a rank.
        num_ranks: that share.
    """
    extents = dataset.extents()
    rows = max(extent.block_rows for extent in extents)
    widths = {name: dataset.index.fields[name].sample_bytes for name in copied}
    rest = rows * sum(dataset.index.fields[n].sample_bytes for n in fields if n not in widths)
    share = cache_bytes // (slot_bytes(rows, widths) + rest)
    blocks = sum(-(-e.stop // e.block_rows) - e.first // e.block_rows for e in extents)
    num_slots = min(share * num_ranks, blocks)
    if num_slots > _MOST_SLOTS:
        num_slots, share = _MOST_SLOTS, _MOST_SLOTS // num_ranks
    if share == 0:
        return None
    return Layout(num_slots, num_ranks, share, rows, tuple(widths.items()))


def _offer(
    num_ranks: int, dataset: Dataset, fields: Sequence[str], cache_bytes: int, mode: Mode
) -> Json:
    """How the memory shall be laid out, or why there shall be none ("": no matter)."""
    copied = _copied(dataset, fields)
    if not copied:
        if mode is True:
            logger.info(
                "%s: nothing to share by data.node_cache: its files are mapped, and the system's "
                "page cache is shared already",
                dataset.name,
            )
        return {"problem": ""}
    layout = plan_layout(dataset, copied, fields, cache_bytes, num_ranks)
    if layout is None:
        return {"problem": "" if mode == "auto" else "a block exceeds data.cache_bytes"}
    try:
        stat = os.statvfs(shm.FOLDER)
        free = stat.f_bavail * stat.f_frsize
        if layout.size > (free // 2 if mode == "auto" else free):
            return {"problem": _too_small(layout.size, free)}
    except OSError as error:
        return {"problem": f"shared memory cannot be had in {shm.FOLDER} ({error.strerror})"}
    return {"problem": "", "layout": asdict(layout)}


def _copied(dataset: Dataset, fields: Sequence[str]) -> tuple[str, ...]:
    """The fields whose blocks are no views of mapped files, in the first shard that is used."""
    reader = Reader(dataset, fields, 0)
    try:
        return reader.copied_fields(dataset.extents()[0].shard)
    finally:
        reader.close()


def _too_small(size: int, free: int) -> str:
    return (
        f"{shm.FOLDER} is too small (needed: {size / _MEBIBYTE:,.0f} MiB, free: "
        f"{free / _MEBIBYTE:,.0f} MiB; a smaller data.cache_bytes needs less)"
    )


def _layout_of(document: Json) -> Layout:
    fields = tuple((str(name), int(size)) for name, size in document.pop("fields"))
    return Layout(fields=fields, **document)


def _complain(node: Group, problem: str) -> None:
    if problem and node.world.is_coordinator:
        logger.warning("data.node_cache: %s: each rank keeps blocks for itself", problem)
