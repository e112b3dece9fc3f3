"""Reading samples: located in blocks, each block read once by the best route, gathered by row.

ids --locate--> Request: parts of blocks --fetch--> blocks in the cache --gather--> buffers
                                         \\--------- rows that need no block ----/
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.arena import Arena
from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Block, Cache, Key
from hpc_train.data.dataset import Dataset
from hpc_train.data.digest import delivered_hash
from hpc_train.data.gather import gather_blocks, root_of, take
from hpc_train.data.node_cache import Lease, NodeCache
from hpc_train.data.open_shards import OpenShards
from hpc_train.data.request import Part, Request
from hpc_train.data.routes import Route, Rows
from hpc_train.data.stage import Stage
from hpc_train.errors import DataError

__all__ = ["Allocate", "Arrays", "Reader", "Request", "delivered_hash"]

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
Allocate = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]

_OPEN_FILES = 64
_SLOTS_IN_USE = 16  # blocks beside those in the cache: on their way, or being gathered from
# pages of a mapped file are the system's, which takes them back when it needs memory: of such a
# block so much counts, and whole windows of it are read ahead
_MAPPED_PART = 1 / 8
_DELAYS = (0.05, 0.2, 0.8)  # seconds before a failed read is tried again
_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


class Reader:
    """Gathers samples of a data set by id; safe to use from several threads.

    A block is read once as long as it is among `cache_bytes` of blocks that are wanted or were
    used most recently. Files are opened when first needed, the last 64 stay open.

    Args:
        dataset: where samples come from.
        fields: what is read of them.
        cache_bytes: budget of blocks.
        shared: blocks of the other ranks of the node; closed by `close`.
        stage: copies of shards that are read in place of them; closed by `close`.

    Attributes:
        bytes_read: bytes of the blocks, and of the rows that needed none, read from files so far;
            as they are in memory, before compression.
    """

    def __init__(
        self,
        dataset: Dataset,
        fields: Sequence[str],
        cache_bytes: int,
        shared: NodeCache | None = None,
        stage: Stage | None = None,
    ) -> None:
        self._dataset = dataset
        self._fields = {name: dataset.index.fields[name] for name in fields}
        self._windows = dataset.windows
        self.cache = Cache(cache_bytes)
        self._shared = shared
        self._stage = stage
        self.lock = threading.RLock()  # of the cache, the open files and the counter
        self._shards = OpenShards(dataset, self._fields, stage, self.lock)
        self._loading: dict[Key, Future[Block]] = {}
        self._arenas: dict[str, Arena] = {}
        self._wholes: dict[int, tuple[str, ...]] = {}  # by shard, the fields that need no blocks
        self._weights: dict[int, float] = {}  # by shard that was opened, what a row counts
        extents = dataset.extents()
        self._ends = np.cumsum([extent.size for extent in extents])
        self._shard = np.array([extent.shard for extent in extents], np.int64)
        self._shift = np.array([extent.first for extent in extents]) - (
            self._ends - [extent.size for extent in extents]
        )
        self._rows = np.array([extent.block_rows for extent in extents], np.int64)
        self._num_blocks = sum(
            -(-e.stop // e.block_rows) - e.first // e.block_rows for e in extents
        )
        self.span = 1 if self._windows is None else self._windows.span  # rows of a sample
        self._row_bytes = sum(info.sample_bytes for info in self._fields.values())
        self.bytes_read = 0

    def buffers(self, size: int, allocate: Allocate = np.empty) -> Arrays:
        """Empty arrays for `size` samples, of shape (size, *field shape), in native byte order.

        Those of windows are of shape (size, span, *field shape). `allocate` makes them.
        """
        return self._empty((size,) if self._windows is None else (size, self.span), allocate)

    def _empty(self, front: tuple[int, ...], allocate: Allocate = np.empty) -> Arrays:
        return {
            name: allocate((*front, *info.shape), np.dtype(info.dtype).newbyteorder("="))
            for name, info in self._fields.items()
        }

    def read(self, ids: Ids, into: Arrays) -> None:
        """Gather the samples `ids` (n,) into the first n rows of each array of `into`."""
        self.gather(self.locate(ids), into)

    def locate(self, ids: Ids) -> Request:
        """Where the samples `ids` (n,) are."""
        rows = ids if self._windows is None else self._windows.rows_of(ids)
        extent = np.searchsorted(self._ends, rows, side="right")
        shard, row = self._shard[extent], rows + self._shift[extent]
        return Request(ids, shard, row, row // self._rows[extent])

    def block_bytes(self, key: Key) -> int:
        """What a block counts in the budget: its bytes in memory, over all fields.

        What is shared takes a whole slot; of pages of a mapped file an eighth counts, as soon as it
        is known that they are.
        """
        first, stop = self._range(key)
        if self._shared is None:
            return int((stop - first) * self._weights.get(key[0], self._row_bytes))
        alone = self._row_bytes - sum(self._shared.row_bytes.values())
        return self._shared.layout.slot_bytes + (stop - first) * alone

    def needs_blocks(self, shard: int) -> bool:
        """Whether a field of a shard is read by blocks; true if that cannot be found out."""
        try:
            return len(self._whole_fields(shard)) < len(self._fields)
        except DataError:
            return True  # the error arrives where the samples are wanted

    def _whole_fields(self, shard: int) -> tuple[str, ...]:
        """The fields of a shard that are gathered without blocks; found out once."""
        if shard not in self._wholes:
            self._wholes[shard] = tuple(
                name
                for name in self._fields
                if self._shards.attempt(shard, name, (0, 1), lambda route: route.whole is not None)
            )
        return self._wholes[shard]

    def copied_fields(self, shard: int) -> tuple[str, ...]:
        """The fields whose blocks are copies, and no views of a mapped file; none if unreadable."""
        try:
            return self._copied(shard)
        except DataError:
            return ()  # the error arrives where the samples are wanted

    def _copied(self, shard: int) -> tuple[str, ...]:
        return tuple(
            name
            for name in self._fields
            if self._shards.attempt(shard, name, (0, 1), lambda route: route.copies)
        )

    def check(self, shard: int) -> None:
        """Check that the fields of a shard can be opened.

        Raises:
            DataError: if not.
        """
        for name in self._fields:
            self._shards.attempt(shard, name, (0, 1), lambda route: route.name)

    def probe(self, part: Part) -> None:
        """Read the rows of one block, and forget them.

        Raises:
            DataError: if they cannot be read.
        """
        count = len(part.rows)
        shards, numbers = (np.full(count, number, np.int64) for number in part.key)
        self.gather(Request(part.rows, shards, part.rows, numbers), self._empty((count,)))

    def fetch(self, key: Key) -> None:
        """Have a block in memory, for `gather` to find.

        Raises:
            DataError: if it cannot be read.
        """
        self._weigh(key[0])
        self._block(key)
        first, stop = rows = self._range(key)
        for name in self._fields:
            self._shards.attempt(key[0], name, rows, lambda route: route.warm(first, stop))

    def gather(self, request: Request, into: Arrays) -> None:
        """Copy the samples into the first n rows of each array of `into`.

        Raises:
            DataError: if they cannot be read.
        """
        size, num_rows = len(request.ids), len(request.rows)
        targets = {name: _as_bytes(into[name][:size], num_rows) for name in self._fields}
        by_blocks = {shard for shard in request.of_shards if self.needs_blocks(shard)}
        parts = [p for p in request.parts if p.key[0] in by_blocks] if by_blocks else []
        with self.lock:
            held = [self.cache.get(part.key) for part in parts]
        # all are held until all is copied
        blocks = [b or self._block(p.key) for b, p in zip(held, parts, strict=True)]
        lengths = {shard: self._dataset.index.shards[shard].block_rows for shard in by_blocks}
        firsts = [part.key[1] * lengths[part.key[0]] for part in parts]
        gather_blocks(parts, blocks, firsts, targets)
        for part in request.by_shard():
            for name in self._whole_fields(part.key[0]):
                self._gather_whole(part, name, targets[name])

    def _weigh(self, shard: int) -> None:
        """Find out what a row of a shard counts in the budget, once."""
        if shard not in self._weights:
            copied = self._copied(shard)
            self._weights[shard] = sum(
                info.sample_bytes * (1.0 if name in copied else _MAPPED_PART)
                for name, info in self._fields.items()
            )

    def close(self) -> None:
        """Close all files and forget all blocks."""
        with self.lock:
            self._shards.close()
            self.cache.clear()
            self._arenas.clear()
        if self._shared is not None:
            self._shared.close()
        if self._stage is not None:
            self._stage.close()

    def _range(self, key: Key) -> tuple[int, int]:
        """The rows [first, stop) of a block in its shard."""
        shard = self._dataset.index.shards[key[0]]
        first = key[1] * shard.block_rows
        return first, min(first + shard.block_rows, shard.samples)

    def _gather_whole(self, part: Part, name: str, target: Rows) -> None:
        """Gather a field that needs no blocks."""

        def copy(route: Route) -> int:
            if route.whole is None:
                raise ValueError("its storage is not what it was")
            route.block(0, 1)  # finds out whether the file was truncated meanwhile
            take(route.whole, part.rows, target, part.places)
            return len(part.rows) * int(target.shape[1])

        span = int(part.rows.min()), int(part.rows.max()) + 1
        taken = self._shards.attempt(part.key[0], name, span, copy)
        with self.lock:
            self.bytes_read += taken

    def _block(self, key: Key) -> Block:
        """A block from the cache, from another thread that reads it, or read now."""
        with self.lock:
            block = self.cache.get(key)
            if block is not None:
                return block
            loading = self._loading.get(key)
            if loading is None:
                mine = self._loading[key] = Future[Block]()
        if loading is not None:
            return loading.result()
        try:
            block, taken = self._load(key)
        except BaseException as error:
            with self.lock:
                del self._loading[key]
            mine.set_exception(error)
            raise
        with self.lock:
            del self._loading[key]
            self.cache.put(key, block)
            self.bytes_read += taken
        mine.set_result(block)
        return block

    def _load(self, key: Key) -> tuple[Block, int]:
        """A block from the other ranks of the node, or read; and how many bytes were read."""
        lease = None
        if self._shared is not None and self.needs_blocks(key[0]):
            lease = self._shared.lease(key)
        try:
            found = self._fill(key, lease)
        except BaseException:
            if lease is not None and not lease.is_ready:
                lease.abandon()
            raise
        if lease is not None and not lease.is_ready:
            lease.publish()
        return found

    def _fill(self, key: Key, lease: Lease | None) -> tuple[Block, int]:
        first, stop = span = self._range(key)
        fields, taken = {}, 0
        for name in self._fields:
            place = None if lease is None else lease.rows(name, stop - first)
            if lease is not None and place is not None and lease.is_ready:
                fields[name] = place
                continue
            read = partial(_read_block, span, place, partial(self._memory, name))
            rows = self._shards.attempt(key[0], name, span, read)
            if rows is not None:
                fields[name] = rows
                taken += rows.nbytes
        roots = {}
        for name, rows in fields.items():
            arena = self._arenas.get(name)
            if rows.shape[1]:
                roots[name] = root_of(rows, None if arena is None else arena.whole)
        return Block(fields, self.block_bytes(key), roots), taken

    def _memory(self, name: str, count: int) -> Rows | None:
        """Memory for `count` rows of a field beside other blocks; None if there is none."""
        width = self._fields[name].sample_bytes
        with self.lock:
            if name not in self._arenas and width:
                largest = int(self._rows.max())
                held = self.cache.capacity // max(1, largest * self._row_bytes)
                slots = min(held, self._num_blocks) + _SLOTS_IN_USE
                try:
                    self._arenas[name] = Arena(largest, width, slots)
                except OSError:  # so much address space is not allowed
                    return None
        return self._arenas[name].rows(count) if width else None


def _read_block(
    span: tuple[int, int],
    place: Rows | None,
    memory: Callable[[int], Rows | None],
    route: Route,
) -> Rows | None:
    """The rows `span` of a field, in `place` if that is given, or in `memory` if they are copied.

    None if they need no block.
    """
    if place is None:
        if route.whole is not None:
            return None
        return route.block(*span, into=memory(span[1] - span[0]) if route.copies else None)
    rows = route.block(*span, into=place)
    if rows is not place:  # shards may differ in storage: in this one the file is mapped
        place[:] = rows
    return place


def _as_bytes(array: NDArray[Any], num_rows: int) -> Rows:
    """An array of `num_rows` rows as bytes, shape (num_rows, bytes of a row)."""
    row_bytes = array.nbytes // max(1, num_rows)
    return array.reshape(-1).view(np.uint8).reshape(num_rows, row_bytes)
