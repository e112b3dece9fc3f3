"""Reading samples: located in blocks, each block read once by the best route, gathered by row.

ids --locate--> Request: parts of blocks --fetch--> blocks in the cache --gather--> buffers
                                         \\--------- rows that need no block ----/
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Block, Cache, Key
from hpc_train.data.dataset import Dataset
from hpc_train.data.digest import delivered_hash
from hpc_train.data.hdf5 import first_line
from hpc_train.data.node_cache import Lease, NodeCache
from hpc_train.data.open_shard import OpenShard
from hpc_train.data.request import Part, Request
from hpc_train.data.routes import Route, Rows
from hpc_train.data.stage import Stage
from hpc_train.errors import DataError

__all__ = ["Arrays", "Reader", "Request", "delivered_hash"]

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

_OPEN_FILES = 64
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
        self._loading: dict[Key, Future[Block]] = {}
        self._files: OrderedDict[int, OpenShard] = OrderedDict()
        extents = dataset.extents()
        self._ends = np.cumsum([extent.size for extent in extents])
        self._shard = np.array([extent.shard for extent in extents], np.int64)
        self._shift = np.array([extent.first for extent in extents]) - (
            self._ends - [extent.size for extent in extents]
        )
        self._rows = np.array([extent.block_rows for extent in extents], np.int64)
        self.span = 1 if self._windows is None else self._windows.span  # rows of a sample
        self._row_bytes = sum(info.sample_bytes for info in self._fields.values())
        self.bytes_read = 0

    def buffers(self, size: int) -> Arrays:
        """Empty arrays for `size` samples, of shape (size, *field shape), in native byte order.

        Those of windows are of shape (size, span, *field shape).
        """
        return self._empty((size,) if self._windows is None else (size, self.span))

    def _empty(self, front: tuple[int, ...]) -> Arrays:
        return {
            name: np.empty((*front, *info.shape), np.dtype(info.dtype).newbyteorder("="))
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
        number = row // self._rows[extent]
        by_block = np.lexsort((number, shard))
        shards, numbers = shard[by_block], number[by_block]
        changes = np.flatnonzero((np.diff(shards) != 0) | (np.diff(numbers) != 0)) + 1
        edges = [0, *changes.tolist(), len(by_block)]
        parts = []
        for first, stop in pairwise(edges):
            if first < stop:
                places = by_block[first:stop]
                key = int(shards[first]), int(numbers[first])
                parts.append(Part(key, places, row[places]))
        return Request(ids, shard, row, parts)

    def block_bytes(self, key: Key) -> int:
        """Bytes of a block in memory, over all fields; what is shared takes a whole slot."""
        first, stop = self._range(key)
        if self._shared is None:
            return (stop - first) * self._row_bytes
        alone = self._row_bytes - sum(self._shared.row_bytes.values())
        return self._shared.layout.slot_bytes + (stop - first) * alone

    def needs_blocks(self, shard: int) -> bool:
        """Whether a field of a shard is read by blocks; true if that cannot be found out."""
        try:
            return any(
                self._attempt(shard, name, (0, 1), lambda route: route.whole is None)
                for name in self._fields
            )
        except DataError:
            return True  # the error arrives where the samples are wanted

    def copied_fields(self, shard: int) -> tuple[str, ...]:
        """The fields whose blocks are copies, and no views of a mapped file; none if unreadable."""
        try:
            return tuple(
                name
                for name in self._fields
                if self._attempt(shard, name, (0, 1), lambda route: route.copies)
            )
        except DataError:
            return ()  # the error arrives where the samples are wanted

    def check(self, shard: int) -> None:
        """Check that the fields of a shard can be opened.

        Raises:
            DataError: if not.
        """
        for name in self._fields:
            self._attempt(shard, name, (0, 1), lambda route: route.name)

    def probe(self, part: Part) -> None:
        """Read the rows of one block, and forget them.

        Raises:
            DataError: if they cannot be read.
        """
        count = len(part.rows)
        alone = Part(part.key, np.arange(count), part.rows)
        shards = np.full(count, part.key[0], np.int64)
        self.gather(Request(part.rows, shards, part.rows, [alone]), self._empty((count,)))

    def fetch(self, key: Key) -> None:
        """Have a block in memory, for `gather` to find.

        Raises:
            DataError: if it cannot be read.
        """
        self._block(key)
        first, stop = rows = self._range(key)
        for name in self._fields:
            self._attempt(key[0], name, rows, lambda route: route.warm(first, stop))

    def gather(self, request: Request, into: Arrays) -> None:
        """Copy the samples into the first n rows of each array of `into`.

        Raises:
            DataError: if they cannot be read.
        """
        size, num_rows = len(request.ids), len(request.rows)
        targets = {name: _as_bytes(into[name][:size], num_rows) for name in self._fields}
        by_blocks = {}
        for part in request.parts:
            shard = part.key[0]
            if shard not in by_blocks:
                by_blocks[shard] = self.needs_blocks(shard)
            if by_blocks[shard]:
                first, _ = self._range(part.key)
                block = self._block(part.key)
                for name, rows in block.fields.items():
                    _take(rows, part.rows - first, targets[name], part.places)
        for part in request.by_shard():
            for name in self._fields:
                self._gather_whole(part, name, targets[name])

    def close(self) -> None:
        """Close all files and forget all blocks."""
        with self.lock:
            for shard in self._files.values():
                shard.close()
            self._files.clear()
            self.cache.clear()
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
        """Gather a field that needs no blocks; nothing to do if it does."""

        def take(route: Route) -> int:
            if route.whole is None:
                return 0
            route.block(0, 1)  # finds out whether the file was truncated meanwhile
            _take(route.whole, part.rows, target, part.places)
            return len(part.rows) * int(target.shape[1])

        span = int(part.rows.min()), int(part.rows.max()) + 1
        taken = self._attempt(part.key[0], name, span, take)
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
            rows = self._attempt(key[0], name, span, partial(_read_block, span, place))
            if rows is not None:
                fields[name] = rows
                taken += rows.nbytes
        return Block(fields, self.block_bytes(key)), taken

    def _attempt(
        self, number: int, name: str, rows: tuple[int, int], act: Callable[[Route], T]
    ) -> T:
        """`act` on the route to a field; tried again where the system fails, then a DataError."""
        for delay in (*_DELAYS, None):
            path = (self._stage and self._stage.path(number)) or self._dataset.path(number)
            try:
                with self._open(number, path) as shard:
                    return act(shard.route(name, self._fields[name]))
            except DataError:
                if self._gives_up_copy(number, path):
                    return self._attempt(number, name, rows, act)
                raise
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                if self._gives_up_copy(number, path):
                    return self._attempt(number, name, rows, act)
                where = str(self._dataset.path(number))
                what = f"rows {rows[0]}..{rows[1] - 1} of {name}"
                if delay is None or isinstance(error, _HOPELESS) or not isinstance(error, OSError):
                    raise DataError(
                        f"cannot read {what}: {_told(error)}",
                        where=where,
                        hint=f"hpc-train data verify {self._dataset.root}",
                    ) from error
                logger.warning("%s: cannot read %s, trying again: %s", where, what, _told(error))
            self._forget(number)
            time.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _gives_up_copy(self, number: int, path: Path) -> bool:
        """Whether `path` is a copy of a shard: no more, as the shard itself may be in order."""
        if self._stage is None or path == self._dataset.path(number):
            return False
        self._stage.reject(number)
        return True

    @contextmanager
    def _open(self, number: int, path: Path) -> Iterator[OpenShard]:
        """A shard, or a copy of it, that stays open while it is used."""
        with self.lock:
            if number in self._files and self._files[number].path != path:
                other = self._files.pop(number)
                if not other.users:  # else the last of them closes it
                    other.close()
            if number in self._files:
                self._files.move_to_end(number)
            else:
                samples = self._dataset.index.shards[number].samples
                self._files[number] = OpenShard(path, self._dataset.root, samples)
                idle = [n for n, shard in self._files.items() if not shard.users and n != number]
                for old in idle[: max(0, len(self._files) - _OPEN_FILES)]:
                    self._files.pop(old).close()
            shard = self._files[number]
            shard.users += 1
        try:
            yield shard
        finally:
            with self.lock:
                shard.users -= 1
                if not shard.users and self._files.get(number) is not shard:
                    shard.close()

    def _forget(self, number: int) -> None:
        """Close a shard whose handles may be stale, if nobody else is using it."""
        with self.lock:
            if number in self._files and not self._files[number].users:
                self._files.pop(number).close()


def _read_block(span: tuple[int, int], place: Rows | None, route: Route) -> Rows | None:
    """The rows `span` of a field, in `place` if that is given; None if they need no block."""
    if place is None:
        return route.block(*span) if route.whole is None else None
    rows = route.block(*span, into=place)
    if rows is not place:  # shards may differ in storage: in this one the file is mapped
        place[:] = rows
    return place


def _told(error: Exception) -> str:
    """An error's first line, with its errno if that does not stand there."""
    code, text = getattr(error, "errno", None), first_line(error)
    return f"{text} (errno {code})" if code and f"rrno {code}" not in text else text


def _as_bytes(array: NDArray[Any], num_rows: int) -> Rows:
    """An array of `num_rows` rows as bytes, shape (num_rows, bytes of a row)."""
    row_bytes = array.nbytes // max(1, num_rows)
    return array.reshape(-1).view(np.uint8).reshape(num_rows, row_bytes)


def _take(rows: Rows, wanted: Ids, target: Rows, places: Ids) -> None:
    """target[places] = rows[wanted], both ascending in `places`."""
    first, stop = int(places[0]), int(places[-1]) + 1
    if stop - first == len(places):
        # with mode="raise" NumPy would copy twice; `wanted` was computed, and is in range
        np.take(rows, wanted, axis=0, out=target[first:stop], mode="clip")
    else:
        target[places] = np.take(rows, wanted, axis=0, mode="clip")
